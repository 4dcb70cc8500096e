"""A study's file with anything in it: it is planned, or refused with a typed error."""

from __future__ import annotations

import copy
import json
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toolkit.core.errors import SourceError, UsageError
from toolkit.report.write import write_report
from toolkit.study.run import plan_study
from toolkit.study.status import status_of
from toolkit.study.store import Store

STUDY = """
title = "A small one"
about = "Of diabetes."
limits = ["Nothing."]

[[train]]
model = "mlp"
data = "diabetes"
seed = [0, 1]
learning_rate = 0.001
settings.hidden = [8, 16]
augmentation = ["flip"]
quick = { seed = 0, "settings.hidden" = 8 }

[[export]]
to = "onnx"
passes = [[], ["float16"]]
where = { seed = 0 }

[[calibrate]]
preset = "openvino"
max_drop = 0.5

[[verify]]
runtimes = ["torch", "onnxruntime"]

[[bench]]
runtimes = ["torch", "onnxruntime"]
batch = [1, 8]
repetitions = 2
tuning = { "onnxruntime.graph_optimization_level" = "basic" }
quick = false

[[bench-training]]
model = "mlp"
data = "diabetes"
trainers = ["torch:eager"]
max_seconds = 1.5

[[exclude]]
step = "bench"
seed = [1, 2]
quick = true

[[table]]
title = "Errors"
of = "trainings"
rows = ["seed"]
metrics = ["test_mae"]
across = "settings.hidden"
at = [8, 16]
where = { seed = 0 }
reference = '''
seed, test_mae
0, 0.5
'''
quick = { at = [8] }

[[plot]]
title = "Error against time"
of = "trainings"
x = "train_s"
y = "test_mae"
by = ["seed"]
kind = "point"
log_x = true
reference = "Errors"
"""

texts = st.one_of(
    st.sampled_from(
        ["", "rows", "mlp", "seed", "settings.hidden", "a.b", "\x00", "../..", "é\u2028"]
    ),
    st.text(max_size=6),
)
scalars = st.one_of(
    texts,
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**63, 10**30]),
    st.floats(),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


def toml(value: Any) -> str:
    """Write a value as inline TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Give every place in a document, as its container and the key in that."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts:
        yield value, key
        if isinstance(part, dict | list):
            yield from places(part)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Draw the study with up to three places replaced, removed or added to."""
    document = copy.deepcopy(tomllib.loads(STUDY))
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(list(places(document))))
        kind = draw(st.sampled_from(["replace", "remove", "add"]))
        if kind == "remove":
            del container[key]
        elif kind == "replace" or isinstance(container, list):
            container[key] = draw(values)
        else:
            container[draw(texts)] = draw(values)
        if not document:
            break
    return "\n".join(f"{toml(key)} = {toml(value)}" for key, value in document.items())


@st.composite
def garbled(draw: st.DrawFn) -> str:
    """Draw the study with a piece of its text replaced."""
    start = draw(st.integers(0, len(STUDY)))
    end = start + draw(st.integers(0, 8))
    return STUDY[:start] + draw(st.text(max_size=8)) + STUDY[end:]


@settings(max_examples=300, deadline=None)
@given(st.one_of(mutated(), garbled()), st.booleans(), st.sampled_from([None, "rows.npz"]))
@example(STUDY, False, None)
@example(STUDY, True, "rows.npz")
def test_a_mutated_study_is_planned_or_refused(text: str, quick: bool, data: str | None) -> None:
    """A study that can be planned can also be stored, read again and reported."""
    with tempfile.TemporaryDirectory() as directory:
        path, out = Path(directory) / "s.toml", Path(directory) / "out"
        path.write_bytes(text.encode())
        try:
            planned = plan_study(path, out=out, quick=quick, data=data)
        except (UsageError, SourceError):
            return
        json.dumps(planned.to_json(), allow_nan=False)
        out.mkdir()
        Store(directory=out).write(planned.study, [one.cell for one in planned.cells])
        assert len(status_of(out)["cells"]) == len(planned.cells)
        write_report([out], out / "report.md")


TRAIN = '[[train]]\nmodel = "mlp"\ndata = "diabetes"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = " + "[" * 5000 + "]" * 5000, "nested more than 16 deep"),
        ("x = " + "{a = " * 5000 + "1" + "}" * 5000, "nested more than 16 deep"),
        (f"[{'.'.join(['a'] * 5000)}]\n", "nested more than 16 deep"),
        (f"{TRAIN}learning_rate = [nan]\n", "the number nan at 'train.1.learning_rate.1'"),
        (f"{TRAIN}learning_rate = -inf\n", "the number -inf"),
        (f"{TRAIN}seed = {10**30}\n", "does not fit 64 bits"),
        (f"{TRAIN}seed = {'9' * 5000}\n", "as TOML"),
        (f"{TRAIN}seed = []\n", "expected at least one value"),
        (f"{TRAIN}settings.day = 1979-05-27\n", "a date at 'train.1.settings.day'"),
        (f"{TRAIN}settings.a.b = 1\n", "Got settings = .*, expected a table"),
        (f"{TRAIN}repetitions = 1.5\n", "expected a whole number of at least 1"),
        (f"{TRAIN}repetitions = {10**9}\n", r"1,000,000,000 combinations up to \[\[train\]\]"),
        (f"{TRAIN}repetitions = 100001\n", "100,001 combinations .*at most 100,000"),
        (
            f"{TRAIN}seed = [0, 1]\n[[bench]]\nrepetitions = 50000\n",
            r"100,002 combinations up to \[\[bench\]\]",
        ),
        (
            TRAIN + "".join(f"settings.x{n} = [0, 1]\n" for n in range(20_000)),
            r"more than 2\*\*63 combinations",
        ),
        (f"{TRAIN}quick = 3\n", "expected true, false or a table"),
        (f"{TRAIN}[[exclude]]\nseed = {{ a = 1 }}\n", "Got exclude = "),
        (f"limits = 3\n{TRAIN}", "Got limits = 3, expected a list of texts"),
        (f"{TRAIN}[[plot]]\ntitle = 3\n", r"Got title in \[\[plot\]\] = 3, expected a text"),
        (
            f"{TRAIN}[[table]]\ntitle='a'\nof='rows'\nrows=['a']\nmetrics=[]\nacross='b'\n",
            "has across and 0 metrics",
        ),
        (
            f"{TRAIN}[[table]]\ntitle='a'\nof='rows'\nrows=['a']\nmetrics=['b']\n"
            "reference='''\na\n1, 2\n'''\n",
            "more cells than its head",
        ),
    ],
)
def test_a_study_that_no_run_can_follow_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises((UsageError, SourceError), match=told):
        plan_study(tmp_path / "s.toml", out=tmp_path / "out")

"""From a study's TOML to its cells."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.errors import SourceError, ToolkitError, UnknownNameError, UsageError
from toolkit.study.document import Study, built_in, lines_of
from toolkit.study.matrix import Cell, cells_of

TRAIN = '[[train]]\nmodel = "mlp"\ndata = "diabetes"\n'


def read(directory: Path, text: str, **options: object) -> Study:
    path = directory / "mine.toml"
    path.write_text(text)
    return Study.read(str(path), **options)  # type: ignore[arg-type]


def cells(directory: Path, text: str, **options: object) -> list[Cell]:
    return cells_of(read(directory, text, **options))


def test_a_list_is_each_in_turn_and_a_list_of_lists_is_each_list(tmp_path: Path) -> None:
    found = cells(
        tmp_path,
        f'{TRAIN}seed = [0, 1]\nsettings.hidden = [8, 16]\n[[export]]\nto = "onnx"\n'
        'passes = [[], ["fold-batch-norm"]]\n[[bench]]\nruntimes = ["torch", "onnxruntime"]\n'
        "batch = [1, 4]\nrepetitions = 2\n",
    )
    counts = {step: sum(one.step == step for one in found) for step in ("train", "export", "bench")}
    assert counts == {"train": 4, "export": 8, "bench": 16}
    bench = next(one for one in found if one.step == "bench")
    assert [parent.step for parent in bench.parents] == ["train", "export", "export"]
    assert bench.dimensions["settings.hidden"] == 8
    assert {one.dimensions.get("repetition", 0) for one in found if one.step == "bench"} == {0, 1}


def test_what_is_stood_on_comes_first_and_ids_are_unique(tmp_path: Path) -> None:
    found = cells(
        tmp_path,
        f'{TRAIN}seed = [0, 1]\n[[export]]\nto = "onnx"\n[[calibrate]]\npreset = "openvino"\n'
        "[[verify]]\n[[bench]]\n",
    )
    ids = [one.id for one in found]
    assert len(set(ids)) == len(ids) == 10
    for number, one in enumerate(found):
        assert {parent.id for parent in one.ancestors} <= set(ids[:number])


def test_an_id_is_of_the_work_alone(tmp_path: Path) -> None:
    alone = cells(tmp_path, f"{TRAIN}seed = 1\n")
    among = cells(tmp_path, f"{TRAIN}seed = [0, 1, 2]\n")
    assert alone[0].id in {one.id for one in among}
    other = cells(tmp_path, f"{TRAIN}seed = 1\nepochs = 3\n")
    assert other[0].id != alone[0].id


def test_excluded_are_cells_or_single_rows(tmp_path: Path) -> None:
    text = (
        '[[bench-training]]\nmodel = "mlp"\ndata = "diabetes"\nbatch = [8, 16]\n'
        'trainers = ["torch:eager", "jax:jit"]\n'
    )
    rows = cells(tmp_path, f'{text}[[exclude]]\ntrainer = "jax:jit"\nbatch = 16\n')
    assert [one.values["trainers"] for one in rows] == [["torch:eager", "jax:jit"], ["torch:eager"]]
    assert len(cells(tmp_path, f"{text}[[exclude]]\nbatch = [16, 32]\n")) == 1
    with pytest.raises(UsageError, match="has no cells"):
        cells(tmp_path, f'{text}[[exclude]]\ntrainer = ["jax:jit", "torch:eager"]\n')


def test_quick_takes_the_place_of_values_or_leaves_a_section_out(tmp_path: Path) -> None:
    text = (
        f"{TRAIN}seed = [0, 1, 2]\nsettings.hidden = 8\n"
        'quick = { seed = 5, "settings.hidden" = 4 }'
        '\n[[export]]\nto = "onnx"\nquick = false\n[[exclude]]\nquick = true\nseed = 9\n'
    )
    assert len(cells(tmp_path, text)) == 6
    (quick,) = cells(tmp_path, text, quick=True)
    assert quick.values == {
        "model": "mlp", "data": "diabetes", "seed": 5, "settings": {"hidden": 4},
    }  # fmt: skip


def test_other_data_stands_in_and_is_told(tmp_path: Path) -> None:
    text = f"{TRAIN}data_settings.fraction = 0.5\n"
    found = read(tmp_path, text, data="rows.npz")
    assert found.stands_in == "rows.npz in place of diabetes"
    assert found.sections[0].values == {"model": "mlp", "data": "rows.npz"}
    assert read(tmp_path, text, data="diabetes").stands_in is None


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from(["sgd", "adam", "rmsprop"]), min_size=1, max_size=3, unique=True),
)
def test_there_is_a_cell_for_each_combination(seeds: list[int], optimizers: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        found = cells(Path(directory), f"{TRAIN}seed = {seeds}\noptimizer = {optimizers}\n")
    pairs = {(one.values["seed"], one.values["optimizer"]) for one in found}
    assert len(found) == len(pairs)
    assert pairs == set(itertools.product(seeds, optimizers))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no section that does anything"),
        ("[[train]]\n", r"\[\[train\]\] has no model"),
        ("[[trian]]\n", "no section of a study named 'trian'"),
        (f"{TRAIN}sede = 1\n", "no key of .*named 'sede'"),
        (f'{TRAIN}seed = "one"\n', "Got seed = 'one', expected a whole number"),
        (f"{TRAIN}epochs = true\n", "Got epochs = True, expected a whole number"),
        (f"{TRAIN}settings = 3\n", "expected a table"),
        (f'{TRAIN}augmentation = "crop"\n', "expected a list"),
        ('[[export]]\nto = "onnx"\n', "nothing to work on"),
        ('train = "lenet"\n', "Got train = 'lenet', expected a list of tables"),
        (f"{TRAIN}[[table]]\ntitle = 'x'\n", "lacks the keys of, rows, metrics"),
        (f"{TRAIN}[[table]]\ntitle='x'\nof='row'\nrows=[]\nmetrics=[]\n", "no kind of record"),
        (f"{TRAIN}[[plot]]\ntitle='x'\nof='rows'\nx='a'\ny='b'\nkind='pie'\n", "no kind of plot"),
        (f"{TRAIN}[[plot]]\ntitle='x'\nof='rows'\nx='a'\ny='b'\nreference='t'\n", "no table"),
        ("title = \n", "as TOML"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ToolkitError, match=told):
        cells(tmp_path, text)


def test_a_study_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="Could not read the study"):
        Study.read(str(tmp_path / "none.toml"))
    with pytest.raises(UnknownNameError, match="mlp-california"):
        Study.read("mlp-californa")


@pytest.mark.parametrize("name", built_in())
@pytest.mark.parametrize("quick", [False, True])
def test_those_that_come_along_can_be_meant(name: str, quick: bool) -> None:
    found = Study.read(name, quick=quick)
    assert cells_of(found)
    assert found.tables
    assert found.plots
    assert found.limits
    for table in found.tables:
        for line in table.reference:
            assert set(table.rows) & set(line), (table.title, line)


def test_the_example_of_the_page_can_be_meant(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "studies.md"
    (example,) = re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    found = cells(tmp_path, example)
    steps = Counter(one.step for one in found)
    assert steps == {"train": 6, "export": 24, "calibrate": 6, "verify": 6, "bench": 16}
    assert cells(tmp_path, example, quick=True)


def test_lines_of_a_reference() -> None:
    (first, second) = lines_of("\na, b, c\n1, x, \n2.5, true, -3\n")
    assert first == {"a": 1, "b": "x"}
    assert second == {"a": 2.5, "b": True, "c": -3}

"""Manifests and other JSON documents of hostile make: no write outside, no untyped error.

The digest of a document is not keyed: whoever alters a document can seal it again.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from typer.testing import CliRunner

import toolkit
from toolkit.cli.main import app
from toolkit.core.artifact import MANIFEST, Artifact, Checkpoint, Format, Parent
from toolkit.core.bundle import BUNDLE_FILE, MODEL, SCHEMA, Bundle
from toolkit.core.documents import canonical, seal, write_document
from toolkit.core.errors import IntegrityError, SourceError, ToolkitError
from toolkit.core.files import digest_bytes, digest_file
from toolkit.core.measurement import Block, Measurement, Opening, Result, Row, Scope, Status
from toolkit.core.session import Provenance, SessionOptions
from toolkit.core.specs import ModelSpec, Signature, TensorSpec
from toolkit.report.gather import gather
from toolkit.results import store as results
from toolkit.results.find import list_results, show_result
from toolkit.sources.capture import Example, capture
from toolkit.study.document import Study
from toolkit.study.matrix import cells_of
from toolkit.study.status import status_of
from toolkit.study.store import CELL_FILE, CELL_SCHEMA, STUDY_FILE, Outcome, State, Store

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 2)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 2)),),
)
SPEC = ModelSpec(name="relu", family="onnx", framework="onnx", signature=SIGNATURE)
STUDY = """
title = "One training"
[[train]]
model = "mlp"
data = "diabetes"
[[table]]
title = "Time"
of = "trainings"
rows = ["model"]
metrics = ["epoch_s"]
"""
MACHINE = {
    "cpu": {
        "model": "x",
        "flags": [],
        "logical_cores": 2,
        "available_cores": 2,
        "container_cores": None,
    },
    "memory_bytes": 2**30,
    "platform": "Linux",
    "python": "3.11",
    "commit": None,
    "versions": {},
    "variables": {},
}

EPOCH = {
    "train_ns": 10,
    "train_loss": 0.5,
    "train_metric": 0.5,
    "samples_per_s": 10.0,
    "learning_rate": 0.1,
    "peak_bytes": 2**20,
    "test_ns": 10,
    "test_loss": 0.5,
    "test_metric": 0.5,
}
TRAINING = {
    "framework": "torch",
    "mode": "eager",
    "recipe": {"epochs": 2, "seed": 0, "batch": 8, "learning_rate": 0.1, "augmentation": []},
    "machine": {"threads": 1},
    "rows": {"train": 10, "test": 10},
    "preprocessing": {"scale": 1.0},
    "source": None,
    "history": [EPOCH],
    "prepare_ns": 10,
    "inference": {"rows": 10, "batch": 10, "ns": 10},
}

Json = dict[str, Any]


def make_artifact(directory: Path, parents: tuple[Parent, ...] = ()) -> Artifact:
    """Write an ONNX artifact of one node."""
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")
    ]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", *zip(tensors))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    directory.mkdir(parents=True)
    onnx.save(model, directory / "model.onnx")
    return Artifact.save(
        directory,
        model=SPEC,
        format=Format.ONNX,
        precision="float32",
        signature=SIGNATURE,
        entry="model.onnx",
        parents=parents,
        options={"opset": 18, "passes": [{"pass": "fold", "operators": {"Relu": [1, 1]}}]},
    )


def make_bundle(directory: Path) -> None:
    made = make_artifact(directory / MODEL)
    body = {
        "artifact_digest": made.digest,
        "runtime": "onnxruntime",
        "options": SessionOptions(),
        "batch": 4,
        "evidence": {"cpu": {"available_cores": 2}, "forward": {"median_ns": 1e6}},
    }
    write_document(directory / BUNDLE_FILE, seal(SCHEMA, body))
    (directory / "run.py").write_text("")


def make_checkpoint(directory: Path) -> Path:
    """Write fresh weights, and say that they were trained."""
    directory.mkdir()
    capture("mlp", Example(), directory)
    seal_again(directory / MANIFEST, lambda it: it.update(training=TRAINING))
    return directory / MANIFEST


def make_result(directory: Path) -> Path:
    times = np.array([5, 6, 7], np.int64)
    row = Row(
        runtime="onnxruntime",
        artifact="model.onnx",
        artifact_digest=digest_bytes(b""),
        batch=1,
        status=Status.OK,
        precision_requested="float32",
        openings=(Opening(import_ns=1, open_ns=2, first_run_ns=3),),
        provenance=Provenance(
            runtime="onnxruntime", version="1", device="cpu", precision="float32", threads=1
        ),
        measurements=(
            Measurement(
                scope=Scope.FORWARD,
                warmup=times,
                settled=True,
                blocks=(Block(round=0, lead=times, samples=times),),
            ),
        ),
    )
    plan = {
        "artifact": "model.onnx",
        "runtimes": ["onnxruntime"],
        "batches": [1],
        "inputs": "random values",
        "options": {"threads": 1},
        "cpus": None,
        "scopes": ["forward"],
    }
    made = Result(
        id="20260101T000000Z-00000000",
        created="2026-01-01T00:00:00+00:00",
        plan=plan,
        rows=(row,),
        environment=MACHINE,
    )
    return results.save(directory, made)


def make_study(directory: Path) -> Path:
    """Write a study whose only cell failed, and return the file of the cell."""
    (directory.parent / "one.toml").write_text(STUDY)
    study = Study.read(str(directory.parent / "one.toml"))
    cells = cells_of(study)
    store = Store(directory=directory)
    store.write(study, cells)
    outcome = Outcome(
        id=cells[0].id,
        step="train",
        dimensions=cells[0].dimensions,
        parents=[],
        state=State.FAILED,
        reason="No memory.",
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        machine="x",
    )
    path = store.place(cells[0].id) / CELL_FILE
    write_document(path, seal(CELL_SCHEMA, vars(outcome)))
    return path


def seal_again(path: Path, change: Callable[[Json], None]) -> None:
    """Change a document, and state the digest that it has then."""
    document = json.loads(path.read_text())
    document.pop("digest")
    change(document)
    path.write_text(json.dumps({**document, "digest": digest_bytes(canonical(document))}))


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


# Names that lead outside.

NAMES = [
    "../../../x",
    "../x",
    "a/../../x",
    "/tmp/toolkit-outside",
    "",
    ".",
    "..",
    "a//b",
    "./a",
    "a/",
    "a\0b",
    "a\nb",
    "..\\x",
    "C:\\x",
    None,
    3,
    ["x"],
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
@pytest.mark.parametrize("place", ["files", "entry"])
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, name: Any, place: str) -> None:
    """The file is there, and its digest is right: only its name is wrong."""
    inner = tmp_path / "a" / "b" / "c"
    make_artifact(inner)
    payload = b"payload"
    for outside in (tmp_path / "x", inner.parent / "x"):
        outside.write_bytes(payload)
    record = {"digest": digest_bytes(payload), "size_bytes": len(payload)}

    def change(document: Json) -> None:
        if place == "entry":
            document["entry"] = name
        else:
            document["files"][name if isinstance(name, str) else json.dumps(name)] = record
        if not isinstance(name, str):
            document["files"] = [name]

    seal_again(inner / MANIFEST, change)
    before = everything(tmp_path)
    for open_it in (
        lambda: toolkit.deploy(inner, to="triton", out=tmp_path / "o" / "u" / "t"),
        lambda: toolkit.export(inner, to="onnx", out=tmp_path / "o" / "u" / "t"),
        lambda: toolkit.inspect(inner),
        lambda: toolkit.load(inner),
    ):
        with pytest.raises(SourceError, match=r"manifest\.json: .*(files|entry)"):
            open_it()
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["/etc", "a\0b", "", 3, "a\\b"], ids=repr)
def test_a_path_of_a_parent_is_relative_text(tmp_path: Path, name: Any) -> None:
    make_artifact(tmp_path / "a", (Parent(kind="onnx", digest=digest_bytes(b""), path="../gone"),))
    assert toolkit.inspect(tmp_path / "a").tensors == 0
    seal_again(tmp_path / "a" / MANIFEST, lambda it: it["parents"][0].update(path=name))
    with pytest.raises(SourceError, match=r"parents\[0\]\.path"):
        toolkit.inspect(tmp_path / "a")


@pytest.mark.parametrize("name", ["../../x", "..", "a/b", "", 3], ids=repr)
def test_an_id_of_a_cell_is_one_name(tmp_path: Path, name: Any) -> None:
    make_study(tmp_path / "study")
    seal_again(tmp_path / "study" / STUDY_FILE, lambda it: it["cells"][0].update(id=name))
    with pytest.raises(SourceError, match=r"study\.json: .*cells\[0\]\.id"):
        status_of(tmp_path / "study")


def test_a_wrong_field_is_named_with_what_was_expected(tmp_path: Path) -> None:
    make_artifact(tmp_path / "a")
    seal_again(tmp_path / "a" / MANIFEST, lambda it: it["files"]["model.onnx"].update(digest="x"))
    with pytest.raises(SourceError) as caught:
        toolkit.inspect(tmp_path / "a")
    assert caught.value.problem == (
        f"Could not read {tmp_path / 'a' / MANIFEST}: expected `sha256:` and 64 hexadecimal "
        "digits, at `files[...].digest`."
    )


@pytest.mark.parametrize(
    ("kind", "keys", "value", "where"),
    [
        ("artifact", ["options", "passes"], 3, r"options of .*`passes`"),
        ("artifact", ["signature", "inputs", 0, "dtype"], "float32; x", r"inputs\[0\]\.dtype"),
        ("artifact", ["signature", "inputs", 0, "shape"], [-1, 2], r"shape\[0\]"),
        ("artifact", ["signature", "inputs", 0, "layout"], "N", "layout"),
        ("artifact", ["files", "model.onnx", "size_bytes"], -1, r"files\[\.\.\.\]\.size_bytes"),
        ("artifact", ["format"], "of-tomorrow", "of-tomorrow.*`format`"),
        ("checkpoint", ["training", "preprocessing"], 3, r"training of .*`preprocessing`"),
        ("checkpoint", ["training", "history"], [], "trained"),
        ("bundle", ["options", "threads"], "two", r"options\.threads"),
        ("bundle", ["evidence", "cpu"], [], r"evidence of .*`cpu`"),
        ("study", ["tables", 0, "of"], "nothing", r"tables\[0\]\.of"),
        ("cell", ["seconds"], 1e300, "seconds"),
        ("result", ["plan", "options"], {}, r"plan of .*`threads`.*`options`"),
        ("result", ["environment", "cpu"], None, r"environment of .*`cpu`"),
        ("result", ["rows", 0, "batch"], 0, r"rows\[0\]\.batch"),
        ("result", ["rows", 0, "measurements", 0, "warmup"], [0.5], r"measurements\[0\]\.warmup"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(
    tmp_path: Path, kind: str, keys: list[str | int], value: Any, where: str
) -> None:
    make, uses = KINDS[kind]
    path = make(tmp_path / "place")

    def change(document: Json) -> None:
        *above, last = keys
        functools.reduce(lambda inner, key: inner[key], above, document)[last] = value

    seal_again(path, change)
    with pytest.raises(SourceError, match=where):
        use_all(uses, tmp_path / "place")


# Links that lead outside.


def linked(directory: Path, name: str, target: Path) -> None:
    """Record a link to `target` as a file of the artifact, as its maker would."""
    (directory / name).parent.mkdir(exist_ok=True)
    if not (directory / name).exists():
        (directory / name).symlink_to(target)
    content = (directory / name).resolve()
    record = {"digest": digest_file(content), "size_bytes": content.stat().st_size}
    seal_again(directory / MANIFEST, lambda it: it["files"].update({name: record}))


@pytest.mark.parametrize("through", ["file", "directory"])
def test_a_link_that_leads_outside_is_not_copied(tmp_path: Path, through: str) -> None:
    make_artifact(tmp_path / "a")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("secret")
    if through == "file":
        linked(tmp_path / "a", "key", tmp_path / "private" / "key")
    else:
        (tmp_path / "a" / "sub").symlink_to(tmp_path / "private")
        linked(tmp_path / "a", "sub/key", tmp_path / "private" / "key")
    before = everything(tmp_path)
    for copies in (
        lambda: toolkit.deploy(tmp_path / "a", to="triton", out=tmp_path / "out"),
        lambda: toolkit.export(tmp_path / "a", to="onnx", out=tmp_path / "out"),
    ):
        with pytest.raises(IntegrityError, match="it is a link to"):
            copies()
    assert everything(tmp_path) == before


@pytest.mark.parametrize("target", ["private/key", "private"])
def test_a_bundle_is_copied_without_what_links_lead_to(tmp_path: Path, target: str) -> None:
    make_bundle(tmp_path / "bundle")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("secret")
    (tmp_path / "bundle" / "extra").symlink_to(tmp_path / target)
    with pytest.raises(IntegrityError, match="it is a link to"):
        toolkit.deploy(tmp_path / "bundle", to="folder", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_inside_is_copied_and_so_is_a_link_that_the_user_named(tmp_path: Path) -> None:
    made = make_artifact(tmp_path / "a")
    (tmp_path / "a" / "same.onnx").symlink_to("model.onnx")
    linked(tmp_path / "a", "same.onnx", tmp_path / "a" / "model.onnx")
    (tmp_path / "link.onnx").symlink_to(made.path)
    for source in (tmp_path / "a", tmp_path / "link.onnx"):
        out = tmp_path / f"out-{source.name}"
        toolkit.deploy(source, to="triton", out=out, name="net")
        assert (out / "net" / "1" / "model.onnx").read_bytes() == made.path.read_bytes()


# Any change at any place.

RAW = {f"<{n}>": text for n, text in enumerate(["NaN", "1e400", "9" * 5000, "[" * 10**5])}
"""Texts that no Python value stands for, by the string that is replaced with each."""

wrong = st.one_of(
    st.sampled_from([None, True, -1, 0, 1, 0.5, -2.5, 1e300, 2**31, 2**63 - 1, 2**63, 10**4000]),
    st.sampled_from(["", "x", "../../x", "a\0b", "\ud800", "/", "1", "sha256:0", *RAW]),
    st.sampled_from([[], {}, [[]], [None], {"": {}}, [1, "a"], {"a": 1}]),
    st.integers(2, 500).map(lambda depth: json.loads("[" * depth + "]" * depth)),
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a document with each of its keys."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(item, dict | list):
            yield from places(item)


@st.composite
def changes(draw: st.DrawFn) -> Callable[[Json], str]:
    """One to three changes of a document, and its text with a digest that fits."""
    picks = draw(
        st.lists(
            st.tuples(st.integers(0, 10**6), st.sampled_from(["set", "delete", "add"]), wrong),
            min_size=1,
            max_size=3,
        )
    )

    def change(document: Json) -> str:
        for pick, how, drawn in picks:
            value = copy.deepcopy(drawn)  # or a later change would change this one
            found = list(places(document))
            if not found:
                break
            container, key = found[pick % len(found)]
            if how == "delete":
                del container[key]
            elif how == "add" and isinstance(container, dict):
                container[value if isinstance(value, str) else "added"] = value
            else:
                container[key] = value
        try:
            digest = digest_bytes(canonical(document))
        except ValueError:  # no digest fits
            digest = digest_bytes(b"")
        text = json.dumps({**document, "digest": digest})
        for placeholder, raw in RAW.items():
            text = text.replace(json.dumps(placeholder), raw)
        return text

    return change


def use_artifact(place: Path) -> None:
    with toolkit.load(place) as session:
        session.run({"x": np.ones((1, 2), np.float32)})


def use_bundle(place: Path) -> None:
    Bundle.load(place)
    use_artifact(place)


def resume(place: Path) -> None:
    """Read all that training continues from, but the state, which this checkpoint lacks."""
    with pytest.raises(ToolkitError):
        toolkit.train(resume=place, out=place.parent / "out")


def show(*args: object) -> None:
    """Run a command in this process: its error is what `toolkit` would catch."""
    done = CliRunner().invoke(app, [str(arg) for arg in args])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception


Uses = tuple[Callable[[Path, Path], object], ...]
INSPECTED: Uses = (
    lambda place, _: toolkit.inspect(place),
    lambda place, _: show("inspect", place),
    lambda place, out: toolkit.deploy(place, to="triton", out=out, name="net"),
)
KINDS: dict[str, tuple[Callable[[Path], Path], Uses]] = {
    "artifact": (
        lambda place: make_artifact(place).directory / MANIFEST,
        (*INSPECTED, lambda place, _: use_artifact(place)),
    ),
    "checkpoint": (
        make_checkpoint,
        (
            *INSPECTED[:2],
            lambda place, _: Checkpoint.load(place).weights(),
            lambda place, _: gather([place]),
            lambda place, _: toolkit.load(place, "torch").close(),
            lambda place, _: resume(place),
        ),
    ),
    "bundle": (
        lambda place: (make_bundle(place), place / BUNDLE_FILE)[-1],
        (lambda place, _: use_bundle(place), INSPECTED[2]),
    ),
    "study": (
        lambda place: (make_study(place), place / STUDY_FILE)[-1],
        (
            lambda place, _: refuse_damaged_cells(place),
            lambda place, _: show("study", "status", place),
            lambda place, _: gather([place]),
        ),
    ),
    "cell": (
        make_study,
        (
            lambda place, _: refuse_damaged_cells(place),
            lambda place, _: show("study", "status", place),
            lambda place, _: gather([place]),
        ),
    ),
    "result": (
        make_result,
        (
            lambda place, _: list_results(directory=place, warn=refuse),
            lambda place, _: show("results", "list", "--directory", place),
            lambda place, _: show_result("2026", directory=place),
            lambda place, _: show("results", "show", "2026", "--directory", place),
            lambda place, _: gather([place]),
        ),
    ),
}


def refuse(warning: str) -> None:
    """Raise what a command only warns of."""
    raise SourceError(warning, hint="")


def refuse_damaged_cells(study: Path) -> None:
    for cell in status_of(study)["cells"]:
        if cell["state"] is State.TO_DO and cell["reason"] is not None:
            refuse(cell["reason"])


def use_all(uses: Uses, place: Path) -> None:
    for use in uses:
        use(place, place.parent / "out")
        shutil.rmtree(place.parent / "out", ignore_errors=True)


@pytest.fixture(scope="module", params=KINDS)
def kind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, str, Uses]:
    """A directory, the document in it, the text of that, and what can be done with it."""
    make, uses = KINDS[request.param]
    place = tmp_path_factory.mktemp(request.param) / "deep" / "er" / "place"
    place.parent.mkdir(parents=True)
    document = make(place)
    use_all(uses, place)  # or a use that is wrong itself would pass as refused
    return place, document, document.read_text(), uses


EXAMPLES = 25


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(change=changes())
def test_a_changed_document_is_read_or_refused(
    kind: tuple[Path, Path, str, Uses], change: Callable[[Json], str]
) -> None:
    place, path, text, uses = kind
    document = json.loads(text)
    document.pop("digest")
    path.write_text(change(document))
    root = place.parents[2]
    before = everything(root)
    for use in uses:
        with contextlib.suppress(ToolkitError):
            use(place, place.parent / "out")
        shutil.rmtree(place.parent / "out", ignore_errors=True)
        assert everything(root) == before

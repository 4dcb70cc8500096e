"""Several forms of a model on the same rows: which is worse, by how much, and is it allowed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_diabetes

import toolkit
from tests.conftest import Run
from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.gates import CheckOutcome
from toolkit.core.measurement import Status

ROWS, CLASSES, WIDTH = 1200, 7, 8
ORT = ["onnxruntime"]


def save_model(
    path: Path,
    table: np.ndarray,
    *,
    batch: int | str = "batch",
    softmax: bool = False,
    names: tuple[str, str] = ("x", "y"),
) -> None:
    """`y = x @ table + shift`, of two inputs; `shift` [batch, outputs]."""
    name, out = names
    nodes = [helper.make_node("MatMul", [name, "table"], [f"{out}_product"])]
    nodes += [helper.make_node("Add", [f"{out}_product", "shift"], ["sum" if softmax else out])]
    nodes += [helper.make_node("Softmax", ["sum"], [out])] if softmax else []
    width, outputs = table.shape
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, width]),
            helper.make_tensor_value_info("shift", TensorProto.FLOAT, [batch, outputs]),
        ],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, [batch, outputs])],
        [numpy_helper.from_array(table.astype(np.float32), "table")],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=opsets), path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Foreign models of two inputs and rows for them: a.onnx; near.onnx, whose weights are rounded;
    worse.onnx, which mixes up two classes; and rows.npz."""
    where = tmp_path_factory.mktemp("forms")
    rng = np.random.default_rng(0)
    table = rng.normal(size=(WIDTH, CLASSES))
    save_model(where / "a.onnx", table)
    save_model(where / "near.onnx", table.round(2), names=("image", "logits"))
    save_model(where / "worse.onnx", table[:, [1, 0, *range(2, CLASSES)]])
    x = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    shift = np.zeros((ROWS, CLASSES), np.float32)
    labels = (x @ table + 0.4 * rng.normal(size=shift.shape)).argmax(axis=1)
    np.savez(where / "rows.npz", x=x, shift=shift, labels=labels)
    np.savez(where / "inputs.npz", x=x.astype(np.float64), shift=shift)
    return where


def changed(place: Path, tmp_path: Path, **arrays: np.ndarray | None) -> Path:
    """rows.npz with other arrays, or without one."""
    kept = {**np.load(place / "rows.npz"), **arrays}
    path = tmp_path / "changed.npz"
    np.savez(path, **{name: array for name, array in kept.items() if array is not None})
    return path


def test_each_form_is_held_against_the_first_on_every_runtime(toolkit_cli: Run, place: Path):
    forms = [place / f"{name}.onnx" for name in ("a", "near", "worse")]
    done = toolkit_cli(
        "verify", *forms, "--data", place / "rows.npz", "--max-drop", 3, "--per-class", "--json"
    )
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["schema"] == "toolkit.accuracy/1"
    assert [(form["letter"], Path(form["path"]).name) for form in report["forms"]] == [
        ("A", "a.onnx"), ("B", "near.onnx"), ("C", "worse.onnx"),
    ]  # fmt: skip
    assert [(row["form"], row["runtime"], row["gate"]) for row in report["rows"]] == [
        ("B", "onnxruntime", "passed"), ("B", "openvino", "passed"),
        ("C", "onnxruntime", "failed"), ("C", "openvino", "failed"),
    ]  # fmt: skip
    arrays = np.load(place / "rows.npz")
    model = onnx.load(place / "a.onnx")
    logits = arrays["x"] @ numpy_helper.to_array(model.graph.initializer[0])
    right = logits.argmax(axis=1) == arrays["labels"]
    worse = logits[:, [1, 0, *range(2, CLASSES)]].argmax(axis=1) == arrays["labels"]
    assert report["a"]["scores"]["top1"] == pytest.approx(right.mean())
    row = report["rows"][2]
    assert row["scores"].keys() == {"loss", "top1", "top5"}
    assert row["scores"]["top1"] == pytest.approx(worse.mean())
    drop = row["drop"]
    assert drop["value"] == pytest.approx(100 * (right.mean() - worse.mean()))
    assert drop["only_a_right"] == (right & ~worse).sum()
    assert drop["only_b_right"] == (worse & ~right).sum()
    assert drop["shown"]
    of_class = {one["label"]: one for one in row["classes"]}
    assert sorted(of_class) == list(range(CLASSES))
    assert sum(one["rows"] for one in of_class.values()) == ROWS
    assert of_class[0]["drop"]["value"] > 40
    assert of_class[5]["drop"]["value"] == 0


def test_what_is_printed_says_by_how_much_with_the_interval(toolkit_cli: Run, place: Path):
    done = toolkit_cli(
        "verify", place / "a.onnx", place / "worse.onnx", "--data", place / "rows.npz",
        "--runtime", "onnxruntime", "--max-drop", 0.5, "--per-class",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "A: " in done.stdout
    assert "what the others are compared with" in done.stdout
    assert " points worse, between " in done.stdout
    assert "B on onnxruntime: FAILED: the drop is more than 0.5 points" in done.stdout
    assert "by class" in done.stdout
    assert "of 95 %" in done.stdout


def test_too_few_rows_are_told_with_how_many_it_takes(
    toolkit_cli: Run, place: Path, tmp_path: Path
):
    arrays = np.load(place / "rows.npz")
    few = changed(place, tmp_path, **{name: array[:100] for name, array in arrays.items()})
    done = toolkit_cli(
        "verify", place / "a.onnx", place / "near.onnx", "--data", few,
        "--runtime", "onnxruntime", "--max-drop", 1,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "cannot be decided from 100 rows: about" in done.stdout
    assert "rows would tell" in done.stdout


def test_one_form_is_held_against_its_reference(checkpoint_dir: Path, artifact_dir: Path):
    """Fewer rows than the interval would need, but outputs that are the same to rounding."""
    found = toolkit.verify([artifact_dir], data="digits", runtimes=ORT, max_drop=0.5)
    (row,) = found.rows
    assert found.forms[0].path.startswith(str(checkpoint_dir.resolve()))
    assert found.reference == "torch"
    assert row.drop is not None
    assert row.drop.gate(0.5) is CheckOutcome.UNKNOWN
    assert row.gate is CheckOutcome.PASSED
    assert "to the rounding of float32" in row.why
    assert found.scores["top1"] >= 0.95


def test_without_labels_outputs_are_held_to_the_tolerance(place: Path):
    forms = [place / name for name in ("a.onnx", "near.onnx")]
    found = toolkit.verify(forms, inputs=place / "inputs.npz", runtimes=ORT)
    (row,) = found.rows
    assert (found.labelled, found.scores, row.drop, row.gate) == (
        False,
        {},
        None,
        CheckOutcome.FAILED,
    )
    assert row.agreement is not None
    assert 0.95 < row.agreement < 1
    near = row.outputs["y"]  # by A's name for it
    assert near.sqnr_db is not None
    assert 40 < near.sqnr_db < 60
    assert near.cosine is not None
    assert near.cosine > 0.999
    assert "expected 99.90%" in row.why or "differs by" in row.why


def test_a_fixed_batch_and_probabilities_of_a_single_form(place: Path, tmp_path: Path):
    table = numpy_helper.to_array(onnx.load(place / "a.onnx").graph.initializer[0])
    save_model(tmp_path / "fixed.onnx", table, batch=7, softmax=True)
    save_model(tmp_path / "free.onnx", table, softmax=True)
    forms = (tmp_path / "free.onnx", tmp_path / "fixed.onnx")
    found = toolkit.verify(forms, data=str(place / "rows.npz"), runtimes=ORT)
    (row,) = found.rows
    assert found.probabilities
    assert row.passed, row.why
    assert row.scores == pytest.approx(found.scores, rel=1e-5)
    logits = toolkit.verify([place / "a.onnx"], data=str(place / "rows.npz"), runtimes=ORT)
    assert not logits.probabilities
    assert found.scores["loss"] == pytest.approx(logits.scores["loss"], rel=1e-5)


def test_values_are_compared_by_their_squared_errors(tmp_path: Path):
    data = load_diabetes()
    x = np.hstack([data.data, np.ones((len(data.data), 1))])
    targets = data.target / 100
    table = np.linalg.lstsq(x, targets, rcond=None)[0][:, None]
    save_model(tmp_path / "a.onnx", table)
    save_model(tmp_path / "b.onnx", 0.8 * table)
    np.savez(tmp_path / "rows.npz", x=x, shift=np.zeros((len(x), 1)), targets=targets)
    forms = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    rows = str(tmp_path / "rows.npz")
    found = toolkit.verify(forms, data=rows, runtimes=ORT, max_drop=1)
    (row,) = found.rows
    predicted = [x @ table[:, 0] * factor for factor in (1, 0.8)]
    mse = [np.square(one - targets).mean() for one in predicted]
    assert found.scores == pytest.approx(
        {"mse": mse[0], "mae": np.abs(predicted[0] - targets).mean()}, rel=1e-4
    )
    assert row.drop is not None
    assert row.drop.value == pytest.approx(100 * (mse[1] / mse[0] - 1), rel=1e-3)
    assert row.gate is CheckOutcome.FAILED
    assert row.why == "the drop is more than 1 % of the MSE"
    columns = changed(tmp_path, tmp_path, targets=targets[:, None])
    assert toolkit.verify(forms, data=str(columns), runtimes=ORT, max_drop=1).scores == found.scores
    with pytest.raises(UsageError, match="have values, not classes"):
        toolkit.verify(forms, data=rows, per_class=True)


def test_inner_tensors_are_told_by_name(toolkit_cli: Run, place: Path):
    done = toolkit_cli(
        "verify", place / "a.onnx", place / "worse.onnx", "--inputs", place / "inputs.npz",
        "--runtime", "onnxruntime", "--layers", "--json",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    (inner,) = json.loads(done.stdout)["layers"]
    found = {tensor["name"]: tensor["sqnr_db"] for tensor in inner["tensors"]}
    assert list(found) == ["y_product", "y"]
    assert found["y_product"] < 20


def test_a_form_without_inner_tensors_of_the_same_names_says_so(place: Path):
    found = toolkit.verify(
        [place / "a.onnx", place / "near.onnx"],
        inputs=place / "inputs.npz", runtimes=ORT, layers=True,
    )  # fmt: skip
    (inner,) = found.layers
    assert inner.layers is None
    assert "no inner tensors of the same names" in (inner.reason or "")


def test_nan_from_a_form_fails_it_and_from_the_first_ends_it(place: Path, tmp_path: Path):
    table = numpy_helper.to_array(onnx.load(place / "a.onnx").graph.initializer[0]).copy()
    table[0, 0] = np.nan
    save_model(tmp_path / "nan.onnx", table)
    rows = str(place / "rows.npz")
    for allowed in (None, 50):
        found = toolkit.verify(
            [place / "a.onnx", tmp_path / "nan.onnx"], data=rows, runtimes=ORT, max_drop=allowed
        )
        (row,) = found.rows
        assert (row.status, row.gate, row.scores) == (Status.OK, CheckOutcome.FAILED, None)
        assert row.why == "y has NaN or infinity, first in row 0"
    with pytest.raises(ToolkitError, match="gives NaN or infinity in y, row 0") as raised:
        toolkit.verify([tmp_path / "nan.onnx", place / "a.onnx"], data=rows, runtimes=ORT)
    assert raised.value.exit_code == 3


def test_a_runtime_that_cannot_run_costs_its_row(place: Path):
    found = toolkit.verify(
        [place / "a.onnx", place / "near.onnx"],
        data=str(place / "rows.npz"),
        runtimes=["onnxruntime", "null"],
        max_drop=5,
    )
    assert [(row.runtime, row.gate) for row in found.rows] == [
        ("onnxruntime", CheckOutcome.PASSED),
        ("null", CheckOutcome.UNKNOWN),
    ]
    assert found.gate is CheckOutcome.UNKNOWN


LABELS = np.arange(ROWS) % CLASSES


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"labels": None}, "have no labels"),
        ({"labels": np.full(ROWS, 3)}, f"All {ROWS} labels of rows of .* are class 3"),
        ({"labels": LABELS + 1}, "Label 7 in row 6 .* is none of the 7 classes"),
        ({"labels": LABELS - 1}, "Label -1 in row 0 .* is none of the 7 classes"),
        ({"labels": LABELS[:-1]}, "labels has 1199 rows, the inputs have 1200"),
        ({"labels": LABELS.astype(np.float32)}, "are 1 values a row; .* gives y 7"),
        ({"labels": LABELS[:, None]}, r"expected whole numbers \[rows\]"),
        ({"labels": LABELS[:, None, None] / 2}, r"labels is float64 of shape \[1200, 1, 1\]"),
        ({"labels": np.where(LABELS == 2, np.nan, LABELS)}, "labels has NaN or infinity in row 2"),
        ({"labels": LABELS.astype(str)}, "labels is <U21 of shape"),
        ({"targets": LABELS}, "has both labels and targets"),
        ({"x": None}, r"it has the arrays \['labels', 'shift'\]"),
        ({"more": LABELS}, "it has the arrays"),
        ({"x": np.full((ROWS, WIDTH), np.nan)}, "x has NaN or infinity in row 0"),
        ({"x": np.full((ROWS, WIDTH), 1e300)}, "values beyond float32"),
        ({"x": np.zeros((ROWS, 3), np.float32)}, r"Input 'x' has shape \[64, 3\]"),
        ({"x": np.zeros((5, WIDTH), np.float32)}, "its inputs have these rows: x 5, shift 1200"),
        ({"x": np.zeros((ROWS, WIDTH), np.int64)}, "Input 'x' has dtype int64"),
    ],
)
def test_rows_that_cannot_be_meant_are_refused(
    place: Path, tmp_path: Path, arrays: dict[str, np.ndarray | None], says: str
):
    data = changed(place, tmp_path, **arrays)
    with pytest.raises(UsageError, match=says):
        toolkit.verify(
            [place / "a.onnx", place / "near.onnx"], data=str(data), runtimes=ORT, max_drop=1
        )


def test_what_cannot_be_meant_is_refused(place: Path, artifact_dir: Path):
    a, near, rows = place / "a.onnx", place / "near.onnx", str(place / "rows.npz")
    for forms, options, says in (
        ([a, a], {"data": rows}, "are the same artifact"),
        ([], {"data": rows}, "Got 0 artifacts"),
        ([a, near], {}, "Got neither of --data and --inputs"),
        ([a, near], {"data": rows, "inputs": rows}, "Got both of --data and --inputs"),
        ([a, near], {"data": rows, "max_drop": 0}, "Got --max-drop 0"),
        ([a, near], {"data": rows, "runtimes": ["torch"]}, "None of the runtimes torch opens"),
        ([a, near], {"data": "digits"}, "digits gives one input"),
        ([a, artifact_dir], {"data": rows}, "do not fit .*lenet-onnx"),
        (a, {"data": rows, "max_drop": 1}, "Got max_drop for one artifact"),
        (a, {}, "Got no data to verify on"),
    ):
        with pytest.raises(UsageError, match=says):
            toolkit.verify(forms, **options)

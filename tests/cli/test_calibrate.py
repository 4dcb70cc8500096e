"""toolkit calibrate: from a float artifact to an INT8 variant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import toolkit
from tests.conftest import Exported, Run
from toolkit.core.artifact import Artifact
from toolkit.core.documents import read_document
from toolkit.exporting.export import PROOF
from toolkit.quantization.calibrate import RECORD, SCHEMA

PRESETS = ("onnxruntime", "openvino", "tensorrt")


@pytest.mark.parametrize("preset", PRESETS)
def test_lenet_keeps_its_classes(preset: str, artifact_dir: Path, toolkit_cli: Run) -> None:
    done = toolkit_cli(
        "calibrate", artifact_dir, "--data", "digits", "--preset", preset, "--samples", 100,
        "--method", "mse", "--out", "int8", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["weights"]["explained"] == told["weights"]["total"] == 10
    assert told["outputs"]["logits"]["sqnr_db"] > 25
    assert told["outputs"]["logits"]["agreement"] > 0.98
    assert (told["samples"], told["rows"]) == (100, "training rows of digits")
    assert told["warnings"] == []
    made = Artifact.load(Path(told["artifact"]))
    made.verify()
    source = Artifact.load(artifact_dir)
    assert made.precision == "int8"
    assert made.signature == source.signature
    assert made.parents[0].digest == source.digest
    assert made.options["calibration"]["rows_digest"] == told["rows_digest"]
    record = read_document(made.directory / RECORD, SCHEMA)
    assert record["tensors"]["input"]["count"] == 100 * 3 * 32 * 32
    for found in record["tensors"].values():
        assert min(found["least"], 0) <= found["low"] <= 0 <= found["high"]
        assert found["high"] <= max(found["greatest"], 0)


def test_it_is_measured_as_int8(artifact_dir: Path, toolkit_cli: Run) -> None:
    toolkit_cli("calibrate", artifact_dir, "--data", "digits", "--out", "int8")
    done = toolkit_cli(
        "bench", "int8", "--runtime", "onnxruntime,openvino", "--runs", 5, "--warmup", 1, "--json"
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert {row["provenance"]["precision"] for row in rows} <= {"int8", "mixed"}


@pytest.mark.parametrize(
    ("preset", "target"),
    [("tensorrt", "tensorrt-rtx"), ("openvino", "openvino"), ("onnxruntime", "openvino")],
)
def test_eight_bits_are_exported_with_proof(
    preset: str, target: str, artifact_dir: Path, toolkit_cli: Run, tmp_path: Path
) -> None:
    """Scales are not weights, and outputs are compared with the INT8 graph itself."""
    if target == "tensorrt-rtx":
        pytest.importorskip("tensorrt_rtx")
    toolkit_cli("calibrate", artifact_dir, "--data", "digits", "--preset", preset, "--out", "int8")
    done = toolkit_cli("export", "int8", "--to", target, "--out", "form", "--json")
    assert done.returncode == 0, done.stderr
    made, source = Artifact.load(tmp_path / "form"), Artifact.load(tmp_path / "int8")
    assert (made.format, made.precision) == (target, "int8")
    proof = json.loads((tmp_path / "form" / PROOF).read_text())
    assert proof["weights"]["explained"] == proof["weights"]["total"]
    assert proof["outputs"]["reference"] == "onnxruntime"
    cases = {case["inputs"]: case for case in proof["outputs"]["cases"]}
    large = cases["random values times 1000"]  # which saturate, as they do in the source
    assert large["error"] <= 0.05 * max(case["scale"] for case in cases.values())
    scales = [
        numpy_helper.to_array(one)
        for one in onnx.load(source.path).graph.initializer
        if one.name.endswith("_scale")
    ]
    assert any(scale.size > 1 for scale in scales)  # of each channel
    again = toolkit_cli("parity", "weights", "int8", "form")
    assert again.returncode == 0, again.stdout


def test_a_batch_norm_is_folded_first(toolkit_cli: Run, tmp_path: Path) -> None:
    for args in (
        ("export", "resnet", "--to", "onnx", "--out", "float"),
        ("calibrate", "float", "--data", "digits", "--samples", "32", "--out", "int8"),
    ):
        done = toolkit_cli(*args)
        assert done.returncode == 0, done.stderr
    made = Artifact.load(tmp_path / "int8")
    assert "fold-batch-norm" in [change["pass"] for change in made.options["passes"]]
    kinds = {node.op_type for node in onnx.load(made.path).graph.node}
    assert "BatchNormalization" not in kinds
    assert not any((tmp_path / "int8").glob("*.partial*"))


def refused(toolkit_cli: Run, tmp_path: Path, *args: object) -> str:
    done = toolkit_cli("calibrate", *args, "--out", "int8")
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "int8").exists()
    return done.stderr


def test_wrong_use(
    artifact_dir: Path, checkpoint_dir: Path, toolkit_cli: Run, tmp_path: Path
) -> None:
    digits = (artifact_dir, "--data", "digits")
    for args, told in (
        ((*digits, "--method", "minmaks"), "Did you mean 'minmax'?"),
        ((*digits, "--preset", "openvin"), "Did you mean 'openvino'?"),
        ((*digits, "--samples", 9999), "Got 9999 samples, and there are 1437"),
        ((*digits, "--preset", "tensorrt", "--asymmetric"), "takes no zero point but 0"),
        ((*digits, "--exclude", "nosuch"), "There is no node named 'nosuch'"),
        ((checkpoint_dir, "--data", "digits"), "what is calibrated is onnx"),
        ((artifact_dir, "--data", "rows.npz"), "there is no such file"),
    ):
        assert told in refused(toolkit_cli, tmp_path, *args), args


def test_eight_bits_are_not_calibrated_again(
    artifact_dir: Path, toolkit_cli: Run, tmp_path: Path
) -> None:
    done = toolkit_cli(
        "calibrate", artifact_dir, "--data", "digits", "--samples", 8, "--out", "first"
    )
    assert done.returncode == 0, done.stderr
    assert "is int8, expected float32" in refused(
        toolkit_cli, tmp_path, "first", "--data", "digits"
    )


def of_others(path: Path, weight: float) -> None:
    """y = relu(x * w) @ v, of four numbers a row."""
    held = {"w": np.full((4, 4), weight, np.float32), "v": np.eye(4, dtype=np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("MatMul", ["b", "v"], ["y"], name="last"),
    ]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4]) for name in "xy")
    tensors = [numpy_helper.from_array(array, name) for name, array in held.items()]
    graph = helper.make_graph(nodes, "graph", [x], [y], tensors)
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def test_a_float_model_that_fails_names_the_tensor(toolkit_cli: Run, tmp_path: Path) -> None:
    of_others(tmp_path / "m.onnx", 3e38)
    np.savez(tmp_path / "rows.npz", x=np.full((8, 4), 100, np.float32))
    told = refused(toolkit_cli, tmp_path, "m.onnx", "--data", "rows.npz")
    assert "The float model cannot be calibrated: a: Got" in told


def test_outputs_that_collapse_are_written_and_warned_of(toolkit_cli: Run, tmp_path: Path) -> None:
    """One row in a thousand sets the range, and all others are rounded to nothing."""
    of_others(tmp_path / "m.onnx", 1.0)
    rng = np.random.default_rng(0)
    rows = rng.uniform(0, 1, (1100, 4)).astype(np.float32)
    rows[0] = 1e4
    np.savez(tmp_path / "rows.npz", x=rows)
    done = toolkit_cli(
        "calibrate", "m.onnx", "--data", "rows.npz", "--samples", 1099, "--out", "int8", "--json"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert any("COLLAPSED" in warning for warning in told["warnings"])
    assert "HAS COLLAPSED" in done.stderr
    assert "does not say which rows are test rows" in done.stderr
    shutil.rmtree(tmp_path / "int8")


def test_masks_and_what_merges_other_ranges_stay_in_float(toolkit_cli: Run, tmp_path: Path) -> None:
    """Attention with a mask of -inf; boxes in pixels beside scores in one output, each of which is
    reported."""
    rng = np.random.default_rng(0)
    held = {
        name: rng.standard_normal((8, extent)).astype(np.float32)
        for name, extent in {"wq": 8, "wb": 4, "ws": 5}.items()
    }
    held["pixels"] = np.full(4, 320, np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"], name="query"),
        helper.make_node("Transpose", ["x"], ["t"], name="keys", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "t"], ["s"], name="product"),
        helper.make_node("Add", ["s", "mask"], ["m"], name="masked"),
        helper.make_node("Softmax", ["m"], ["p"], name="softmax"),
        helper.make_node("MatMul", ["p", "x"], ["h"], name="mixed"),
        helper.make_node("MatMul", ["h", "wb"], ["b"], name="boxes"),
        helper.make_node("Mul", ["b", "pixels"], ["bp"], name="scaled"),
        helper.make_node("MatMul", ["h", "ws"], ["c"], name="logits"),
        helper.make_node("Sigmoid", ["c"], ["cs"], name="scores"),
        helper.make_node("Concat", ["bp", "cs"], ["y"], name="merged", axis=2),
    ]
    kinds = {"x": ["n", 6, 8], "mask": ["n", 6, 6]}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in kinds.items()],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 6, 9])],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "m.onnx")
    mask = np.where(np.tri(6, dtype=bool), 0, -np.inf).astype(np.float32)
    x = rng.standard_normal((32, 6, 8)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=x, mask=np.broadcast_to(mask, (32, 6, 6)))
    done = toolkit_cli("calibrate", "m.onnx", "--data", "rows.npz", "--out", "mixed", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["kept"].keys() >= {"masked", "softmax", "merged"}
    assert "masked stays in float: mask has infinite values" in done.stderr
    assert {name: found["sqnr_db"] > 20 for name, found in told["outputs"].items()} == {
        "y": True, "y[:, :, 0:4]": True, "y[:, :, 4:9]": True
    }  # fmt: skip
    shutil.rmtree(tmp_path / "mixed")


def test_a_mixture_keeps_within_the_drop(artifact_dir: Path, toolkit_cli: Run) -> None:
    """entropy clips LeNet's input, so that the nodes that read it have to stay in float."""
    asked = ("calibrate", artifact_dir, "--data", "digits", "--method", "entropy")
    whole = toolkit_cli(*asked, "--out", "whole", "--json")
    assert json.loads(whole.stdout)["mixture"] is None
    done = toolkit_cli(*asked, "--search", "mixed", "--max-drop", 2, "--out", "mixed", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    found = told["mixture"]
    assert found["accuracy"]["gate"] == "passed"
    assert found["accuracy"]["drop"]["ci95"][1] <= 2
    costs = [one["sqnr_db"] for one in found["sensitivities"]]
    assert costs == sorted(costs)
    worst = [one["node"] for one in found["sensitivities"][: len(found["in_float"])]]
    assert found["in_float"] == worst != []
    assert (
        told["outputs"]["logits"]["sqnr_db"]
        > json.loads(whole.stdout)["outputs"]["logits"]["sqnr_db"]
    )
    made = onnx.load(Path(told["artifact"]) / "model.onnx")
    made_by = {output: node for node in made.graph.node for output in node.output}
    for node in made.graph.node:
        if node.name in worst and node.op_type == "Conv":
            feeding = made_by.get(node.input[1])
            assert feeding is None or feeding.op_type != "DequantizeLinear"


def test_no_mixture_is_enough(artifact_dir: Path, toolkit_cli: Run, tmp_path: Path) -> None:
    """By 360 rows, no drop of a tenth of a point can be told."""
    done = toolkit_cli(
        "calibrate", artifact_dir, "--data", "digits", "--method", "entropy", "--search", "mixed",
        "--max-drop", 0.1, "--out", "mixed",
    )  # fmt: skip
    assert done.returncode == 1
    assert "No mixture loses at most 0.1" in done.stderr
    assert not (tmp_path / "mixed").exists()
    lone = toolkit_cli("calibrate", artifact_dir, "--data", "digits", "--max-drop", 1, "--out", "x")
    assert lone.returncode == 2
    assert "without --search mixed" in lone.stderr


def test_litert_in_eight_bits(
    exported: Exported, artifact_dir: Path, toolkit_cli: Run, tmp_path: Path
) -> None:
    """By TensorFlow's converter, from a SavedModel and rows to run it on."""
    saved = exported("savedmodel")
    asked = ("calibrate", saved, "--data", "digits", "--preset", "litert")
    done = toolkit_cli(*asked, "--samples", 100, "--out", "int8", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["weights"]["explained"] == told["weights"]["total"] == 10
    assert told["outputs"]["logits"]["sqnr_db"] > 20
    assert told["outputs"]["logits"]["agreement"] > 0.97
    made = Artifact.load(tmp_path / "int8")
    made.verify()
    assert (made.format, made.precision) == ("litert", "int8")
    assert made.parents[0].digest == Artifact.load(saved).digest
    assert made.size_bytes < 0.5 * Artifact.load(artifact_dir).size_bytes
    compared = toolkit_cli(
        "verify", saved, "int8", "--data", "digits", "--runtime", "litert", "--max-drop", 4
    )
    assert compared.returncode == 0, compared.stdout + compared.stderr
    refused = toolkit_cli(*asked, "--method", "entropy", "--out", "other")
    assert refused.returncode == 2
    assert "TensorFlow's converter decides" in refused.stderr
    onnx_one = toolkit_cli(
        "calibrate", artifact_dir, "--data", "digits", "--preset", "litert", "--out", "other"
    )
    assert onnx_one.returncode == 2
    assert "toolkit export … --to savedmodel" in onnx_one.stderr


def test_a_graph_of_an_old_opset_has_the_extents_of_the_rows(tmp_path: Path) -> None:
    """Its copy in a newer opset is compared with it at these extents."""
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, None, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, None, None])],
        [numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", 11)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=6), tmp_path / "m.onnx")
    rows = np.random.default_rng(1).standard_normal((4, 3, 20, 24)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=rows)
    done = toolkit.calibrate(
        tmp_path / "m.onnx", data=str(tmp_path / "rows.npz"), out=tmp_path / "int8"
    )
    assert done.outputs["y"].sqnr_db > 20

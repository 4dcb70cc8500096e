"""Comparison of two variants of a model: by an oracle, and by their inner tensors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import Exported, Run


@pytest.fixture(scope="module")
def slightly_other(artifact_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported LeNet, but that its second activation leaks."""
    model = onnx.load(artifact_dir / "model.onnx")
    node = [node for node in model.graph.node if node.op_type == "Relu"][1]
    node.op_type = "LeakyRelu"
    node.attribute.append(helper.make_attribute("alpha", 0.01))
    path = tmp_path_factory.mktemp("other") / "other.onnx"
    onnx.save(model, path)
    return path


def compared(run: Run, a: Path, b: Path, *args: object) -> tuple[int, dict]:
    done = run("parity", "outputs", a, b, "--layers", "--json", *args)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("first", ["checkpoint", "onnx", "openvino"])
def test_the_first_tensor_that_departs_is_named(
    toolkit_cli: Run,
    checkpoint_dir: Path,
    artifact_dir: Path,
    exported: Exported,
    slightly_other: Path,
    first: str,
) -> None:
    given = {"checkpoint": checkpoint_dir, "onnx": artifact_dir / "model.onnx"}.get(first)
    code, shown = compared(toolkit_cli, given or exported("openvino"), slightly_other)
    assert code == 1
    layers = shown["layers"]
    assert layers["first_departing"] == "relu_1"
    passed = [tensor["passed"] for tensor in layers["tensors"]]
    names = [tensor["name"] for tensor in layers["tensors"]]
    assert passed == [True] * names.index("relu_1") + [False] * (len(names) - names.index("relu_1"))
    assert names[-1] == "logits"
    assert len(names) > 8
    (leaky,) = [tensor for tensor in layers["tensors"] if tensor["name"] == "relu_1"]
    assert "LeakyRelu" in leaky["operator"]


def test_none_departs_of_the_same_model(
    toolkit_cli: Run, checkpoint_dir: Path, artifact_dir: Path, exported: Exported
) -> None:
    code, shown = compared(toolkit_cli, checkpoint_dir, artifact_dir, "--runtime", "openvino")
    assert code == 0
    assert shown["layers"]["runtime"] == "openvino"
    assert shown["layers"]["first_departing"] is None
    assert shown["layers"]["oracle"] == "torch-export in float64"
    done = toolkit_cli("parity", "outputs", checkpoint_dir, exported("torch-export"), "--layers")
    assert done.returncode == 0, done.stderr
    assert "None of" in done.stdout
    assert "torch-export" in done.stdout


def test_a_form_without_inner_tensors_is_refused(
    toolkit_cli: Run, artifact_dir: Path, exported: Exported
) -> None:
    done = toolkit_cli("parity", "outputs", artifact_dir, exported("aotinductor"), "--layers")
    assert done.returncode == 2
    assert "No inner tensors can be had" in done.stderr


def save_foreign(path: Path, *, operator: str = "Tanh", domain: str = "") -> None:
    """Sums of many terms, each rounded in float32."""
    table = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "table"], ["y"])]
    nodes += [helper.make_node(operator, ["y"], ["z"], domain=domain)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(table, "table")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=opsets), path)


def test_a_foreign_graph_is_judged_by_onnx_s_own_evaluator(
    toolkit_cli: Run, tmp_path: Path
) -> None:
    save_foreign(tmp_path / "theirs.onnx")
    done = toolkit_cli("parity", "outputs", "theirs.onnx", "theirs.onnx", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["oracle"] == "ONNX's reference evaluator in float64"
    assert shown["remark"] is None
    errors = [case["reference_error"] for case in shown["cases"]]
    assert 0 < max(errors) < 1e-5
    done = toolkit_cli(
        "bench", "theirs.onnx", "--runtime", "onnxruntime,onnx-reference", "--runs", 11, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert {row["status"] for row in json.loads(done.stdout)["rows"]} == {"ok"}
    # It is not what one deploys: unless it is named, it is left out.
    done = toolkit_cli("bench", "theirs.onnx", "--runs", 11, "--json")
    assert "onnx-reference" not in {row["runtime"] for row in json.loads(done.stdout)["rows"]}


def test_an_operator_that_the_evaluator_has_not_leaves_the_reference(
    toolkit_cli: Run, tmp_path: Path
) -> None:
    save_foreign(tmp_path / "theirs.onnx", operator="QuickGelu", domain="com.microsoft")
    done = toolkit_cli("parity", "outputs", "theirs.onnx", "theirs.onnx", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["oracle"] is None
    assert "QuickGelu" in shown["remark"]

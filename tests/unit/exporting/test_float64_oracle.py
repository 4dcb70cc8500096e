"""Outputs are judged by an oracle only where the oracle computes the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import toolkit

VECTORS = {
    name: np.linspace(low, high, 3, dtype=np.float32)
    for name, low, high in (("scale", 1, 2), ("beta", -1, 1), ("mean", 0, 3), ("var", 1, 4))
}


def saved(path: Path, nodes: list[onnx.NodeProto], opset: int, **constants: np.ndarray) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, ir_version=6, opset_imports=[helper.make_opsetid("", opset)])
    model = onnx.shape_inference.infer_shapes(model)
    onnx.save(model, path)
    return path


def batch_norm(path: Path, opset: int, **changed: np.ndarray) -> Path:
    nodes = [helper.make_node("BatchNormalization", ["x", *VECTORS], ["y"])]
    return saved(path, nodes, opset, **{**VECTORS, **changed})


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_batch_normalization_of_any_opset_is_judged_rightly(tmp_path: Path, opset: int) -> None:
    """ONNX's reference evaluator takes that of opset 9 for one that trains."""
    right = batch_norm(tmp_path / "right.onnx", opset)
    wrong = batch_norm(tmp_path / "wrong.onnx", opset, beta=VECTORS["beta"] + np.float32(0.01))
    same = toolkit.parity_outputs(right, right).outputs
    assert same.passed
    assert same.oracle == "ONNX's reference evaluator in float64"
    assert not toolkit.parity_outputs(right, wrong).outputs.passed


def test_an_evaluator_that_computes_another_model_is_not_used(tmp_path: Path) -> None:
    """ONNX's converter makes a linear Resize of opset 10 one with other coordinates."""
    nodes = [helper.make_node("Resize", ["x", "scales"], ["y"], mode="linear")]
    scales = np.array([1, 1, 2, 2], np.float32)
    path = saved(tmp_path / "g.onnx", nodes, 10, scales=scales)
    found = toolkit.parity_outputs(path, path).outputs
    assert found.passed
    assert found.oracle is None
    assert found.remark is not None
    assert found.remark.startswith("ONNX's reference evaluator is not used: its y is off by")


def test_larger_values_are_tried_where_rounding_decides_nothing(tmp_path: Path) -> None:
    """Near 0, (x + 1e4) - 1e4 is nothing but rounding."""
    nodes = [helper.make_node("Add", ["x", "c"], ["t"]), helper.make_node("Sub", ["t", "c"], ["y"])]
    path = saved(tmp_path / "g.onnx", nodes, 15, c=np.array([3e3], np.float32))
    found = toolkit.parity_outputs(path, path).outputs
    told = {case.inputs: case.judgement.conclusive for case in found.cases}
    assert found.passed
    assert any(told.values())


def test_zeros_are_tried_where_they_can_occur(tmp_path: Path) -> None:
    path = batch_norm(tmp_path / "g.onnx", 15)
    cases = [case.inputs for case in toolkit.parity_outputs(path, path).outputs.cases]
    assert "zeros" in cases
    assert "random values times 1000" in cases

"""Which nodes stay in floating point by default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from calibration.base import Range
from calibration.kept import nodes_to_keep_in_float

FLOAT = TensorProto.FLOAT
OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("test.other", 1)]


def saved(path: Path, nodes: list[onnx.NodeProto], **constants: np.ndarray) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, FLOAT, ["n", 4]) for name in ("a", "b")],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(np.float32(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, ir_version=9, opset_imports=OPSETS)
    onnx.save(model, path / "g.onnx")
    return path / "g.onnx"


def ranges(**greatest: float) -> dict[str, Range]:
    return {name: Range(low=-found, high=found) for name, found in greatest.items()}


@pytest.mark.parametrize(("apart", "kept"), [(10.0, set()), (17.0, {"merge", "move"})])
def test_ranges_that_are_far_apart_are_not_merged(tmp_path: Path, apart: float, kept: set) -> None:
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["c"], name="merge", axis=1),
        helper.make_node("Transpose", ["c"], ["t"], name="move"),
        helper.make_node("Relu", ["a"], ["y"], name="other"),
    ]
    path = saved(tmp_path, nodes)
    assert (
        nodes_to_keep_in_float(path, ranges(a=apart, b=1.0, c=apart, t=apart, y=1.0)).keys() == kept
    )


def test_a_mask_and_what_reads_the_sum_stay_in_float(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["s"], name="scores"),
        helper.make_node("Add", ["s", "b"], ["m"], name="mask"),
        helper.make_node("Softmax", ["m"], ["p"], name="softmax"),
        helper.make_node("MatMul", ["p", "w"], ["y"], name="out"),
    ]
    path = saved(tmp_path, nodes, w=np.ones((4, 4)))
    found = nodes_to_keep_in_float(path, ranges(a=1.0, b=3e38, s=4.0, m=3e38, p=1.0, y=1.0))
    assert found.keys() == {"mask", "softmax"}
    assert "3e+38" in found["mask"]
    infinite = nodes_to_keep_in_float(
        path, ranges(a=1.0, s=4.0, p=1.0, y=1.0), frozenset({"b", "m"})
    )
    assert infinite.keys() == {"mask", "softmax"}
    assert "infinite" in infinite["mask"]


def test_a_bias_that_is_added_stays_in_float(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["s"], name="product"),
        helper.make_node("Add", ["s", "bias"], ["h"], name="bias"),
        helper.make_node("Add", ["h", "a"], ["y"], name="residual"),
    ]
    path = saved(tmp_path, nodes, w=np.ones((4, 4)), bias=np.ones(4))
    assert nodes_to_keep_in_float(path, ranges(a=1.0, s=4.0, h=5.0, y=6.0)).keys() == {"bias"}


def test_what_reads_a_tensor_of_unknown_type_stays_in_float(tmp_path: Path) -> None:
    """Such as one behind an If whose branches give other ranks: nothing was observed of it."""
    nodes = [
        helper.make_node("Foreign", ["a"], ["f"], domain="test.other"),
        helper.make_node("Concat", ["f", "b"], ["c"], name="merge", axis=1),
        helper.make_node("Shape", ["c"], ["s"], name="shape"),
        helper.make_node("Reshape", ["b", "s"], ["y"], name="reshape"),
    ]
    found = nodes_to_keep_in_float(saved(tmp_path, nodes), ranges(a=1.0, b=1.0, c=1.0, y=1.0))
    assert found == {"merge": "no values of f were observed"}

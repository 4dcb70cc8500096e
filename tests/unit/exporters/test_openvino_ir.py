"""Weights in the branches and the bodies of an OpenVINO graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import toolkit

SHAPE = ["n", 4]


def value(name: str, dtype: int = TensorProto.FLOAT, shape: list | None = None):
    return helper.make_tensor_value_info(name, dtype, SHAPE if shape is None else shape)


def weight(name: str, seed: int) -> onnx.TensorProto:
    array = np.random.default_rng(seed).standard_normal((4, 4)).astype(np.float32)
    return numpy_helper.from_array(array, name)


def branching(seed: int) -> list[onnx.NodeProto]:
    bodies = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("MatMul", ["x", name], [f"{name}_y"])],
            name,
            [],
            [value(f"{name}_y")],
            [weight(name, place + seed)],
        )
        for place, name in enumerate(("then", "else"))
    }
    return [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["is"]),
        helper.make_node("If", ["is"], ["y"], **bodies),
    ]


def looping(seed: int) -> list[onnx.NodeProto]:
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w"], ["next"]),
            helper.make_node("Identity", ["going"], ["on"]),
        ],
        "body",
        [value("turn", TensorProto.INT64, []), value("going", TensorProto.BOOL, []),
         value("state")],
        [value("on", TensorProto.BOOL, []), value("next")],
        [weight("w", seed)],
    )  # fmt: skip
    return [helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)]


GRAPHS = {"If": branching, "Loop": looping}


def saved(path: Path, nodes: list[onnx.NodeProto]) -> Path:
    held = [
        numpy_helper.from_array(np.float32(0), "zero"),
        numpy_helper.from_array(np.int64(3), "turns"),
    ]
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], held)
    onnx.save(
        helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)]), path
    )
    return path


@pytest.mark.parametrize(("kind", "weights"), [("If", 2), ("Loop", 1)])
def test_weights_of_branches_and_bodies_are_found(tmp_path: Path, kind: str, weights: int) -> None:
    path = saved(tmp_path / "g.onnx", GRAPHS[kind](0))
    done = toolkit.export(path, to="openvino", out=tmp_path / "out")
    assert done.weights.passed
    assert done.weights.total == weights
    other = saved(tmp_path / "other.onnx", GRAPHS[kind](7))
    assert not toolkit.parity_weights(other, tmp_path / "out").weights.passed


def test_scales_of_a_resize_are_no_weights(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((4, 3, 1, 1)).astype(np.float32)
    scales = np.array([1, 1, 2, 2], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("Resize", ["c", "", "scales"], ["y"], mode="linear"),
        ],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 16, 16])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(scales, "scales")],
    )
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "m.onnx")
    done = toolkit.export(tmp_path / "m.onnx", to="openvino", out=tmp_path / "openvino")
    assert [tensor.name for tensor in done.weights.tensors] == ["w"]

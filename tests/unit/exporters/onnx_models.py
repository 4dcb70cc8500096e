"""ONNX models that tests make of a few nodes."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

Shapes = dict[str, tuple[int, ...]]


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    shapes: Shapes,
    y: tuple[int, ...] | None = None,
) -> None:
    """A model of float32 inputs, none with a fixed extent, that gives `y`, of which it states a
    shape where one is given."""
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * len(shape))
        for name, shape in shapes.items()
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, y)
    graph = helper.make_graph(nodes, "g", inputs, [output])
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), path)

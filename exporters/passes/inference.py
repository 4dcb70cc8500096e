"""Inference of the types and shapes of a graph, with onnx."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnx_ir as ir

LARGE = 1 << 16  # bytes; no shape is computed from a larger tensor


def infer(model: ir.Model) -> None:
    """Fill in the types that the graph does not declare, and all shapes that onnx infers.

    onnx_ir's ShapeInferencePass is not used: up to version 1.1, it turns every untyped sequence
    into a tensor.
    """
    with _without_large(model.graph):
        proto = ir.to_proto(model)
    found = ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    for graph, inferred in zip(model.graphs(), found.graphs(), strict=True):
        values = ir.convenience.create_value_mapping(inferred)
        for name, value in ir.convenience.create_value_mapping(graph).items():
            told = values.get(name)
            if told is not None and value.type is None:
                value.type = told.type
            if told is not None and told.shape is not None:
                value.shape = told.shape


@contextmanager
def _without_large(graph: ir.Graph) -> Iterator[None]:
    """Turn the large initializers into inputs in this context: a message holds 2 GB at most."""
    large = [
        value
        for value in graph.initializers.values()
        if value.const_value is not None
        and value.const_value.nbytes > LARGE
        and value not in graph.inputs
    ]
    for value in large:
        del graph.initializers[str(value.name)]
        graph.inputs.append(value)
    try:
        yield
    finally:
        for value in large:
            graph.inputs.remove(value)
            graph.register_initializer(value)

"""Constants of a graph, as the passes read and make them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

DOMAIN = ""  # ONNX's own operators
# Operators that keep every value of a tensor, in another order or shape.
REARRANGING = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""Operators whose bodies may read values of the graph around them."""


def require_open_bodies(model: ir.Model) -> None:
    """Raises PreconditionError for a body that may read nothing from outside, as that of a
    FlexAttention: passes that move constants out of bodies would leave it without them."""
    for node in model.graph.all_nodes():
        has_body = any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        )
        if has_body and not (node.domain == DOMAIN and node.op_type in CONTROL_FLOW):
            raise ir.passes.PreconditionError(
                f"the body of {node.op_type} may read nothing from the graph around it."
            )


def is_operator(node: ir.Node | None, kind: str) -> bool:
    return node is not None and node.domain == DOMAIN and node.op_type == kind


def constant(value: ir.Value | None) -> np.ndarray | None:
    """What an initializer or a Constant node holds; None for anything that is computed."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def fill_of(value: ir.Value | None) -> float | None:
    """The number that every element of a tensor is, where the graph says so; else None."""
    held = constant(value)
    if held is not None:
        same = held.size > 0 and bool((held == held.flat[0]).all())
        return float(held.flat[0]) if same and held.dtype.kind == "f" else None
    node = None if value is None else value.producer()
    if is_operator(node, "Expand"):
        return fill_of(node.inputs[0])  # type: ignore[union-attr]
    if is_operator(node, "ConstantOfShape"):
        attribute = node.attributes.get("value")  # type: ignore[union-attr]
        array = np.zeros(1, np.float32) if attribute is None else attribute.as_tensor().numpy()
        return float(array.flat[0]) if array.dtype.kind == "f" else None
    return None


def new_constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A new initializer under that name, or one after it that is free."""
    number, free = 0, name
    while free in graph.initializers:
        number += 1
        free = f"{name}.{number}"
    value = ir.Value(name=free, const_value=ir.tensor(np.ascontiguousarray(array), name=free))
    value.shape = ir.Shape(array.shape)
    value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
    graph.register_initializer(value)
    return value


def put_in_place(
    graph: ir.Graph, nodes: Sequence[ir.Node], old: ir.Value, gone: Sequence[ir.Node]
) -> None:
    """Puts `nodes` where the first of `gone` stands; the last one's output takes the place, name,
    type and shape of `old`."""
    graph.insert_before(gone[0], nodes)
    new = nodes[-1].outputs[0]
    new.type, new.shape, name = old.type, old.shape, old.name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(gone, safe=True)
    new.name = name

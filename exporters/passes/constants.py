"""Functions of the passes that read, find and create constants of a graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

DOMAIN = ""  # of ONNX's own operators
# Operators that only change the order or shape of a tensor's values.
REARRANGING = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""Operators whose bodies may read values of the enclosing graph."""


def require_open_bodies(model: ir.Model) -> None:
    """Raise PreconditionError if a body may not read values of the enclosing graph.

    The body of a FlexAttention is an example. Passes that move constants out of bodies would leave
    it without them.
    """
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
    """Return the array of an initializer or Constant node, or None for a computed value."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def fill_of(value: ir.Value | None) -> float | None:
    """Return the number that all elements of a floating-point tensor equal, None if unknown."""
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
    """Add an initializer with this name, or with a number appended if the name is taken."""
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
    """Insert `nodes` before the first node of `gone`, and remove the nodes of `gone`.

    The output of the last new node takes the uses, name, type and shape of `old`.
    """
    graph.insert_before(gone[0], nodes)
    new = nodes[-1].outputs[0]
    new.type, new.shape, name = old.type, old.shape, old.name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(gone, safe=True)
    new.name = name

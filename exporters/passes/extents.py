"""Folding of the shape arithmetic of a graph."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript import optimizer

from exporters.passes.constants import DOMAIN, is_operator
from exporters.passes.inference import infer


def fold_extents(model: ir.Model) -> None:
    """Fold the shape arithmetic that follows from known extents, and infer the resulting shapes.

    No weight is folded into another.
    """
    infer(model)
    arithmetic = extents(model)
    optimizer.fold_constants(
        model,
        onnx_shape_inference=True,
        should_fold=lambda node: (
            None if any(value in arithmetic for value in node.outputs) else False
        ),
    )
    RemoveUnusedNodesPass()(model)
    infer(model)


def extents(model: ir.Model) -> set[ir.Value]:
    """Return the values that are computed from extents and small constants alone.

    A floating-point value is included if it holds extents, but not if only its shape depends on
    them: the result of Expand on a constant is data.
    """
    found: set[ir.Value] = set()
    for node in model.graph.all_nodes():
        if is_operator(node, "Shape") or is_operator(node, "Size"):
            found.update(node.outputs)
            continue
        inputs = [value for value in node.inputs if value is not None]
        of_extents = [value for value in inputs if value in found]
        if (
            node.domain == DOMAIN
            and of_extents
            and all(value in found or _is_small(value) for value in inputs)
            and not any(_holds_graphs(attribute) for attribute in node.attributes.values())
        ):
            carried = node.op_type == "Cast" or any(map(_is_float, of_extents))
            found.update(out for out in node.outputs if carried or _is_whole(out))
    return found


def _is_small(value: ir.Value) -> bool:
    """Return whether a value is a constant with at most one axis, such as an index."""
    tensor = ir.convenience.get_const_tensor(value)
    return tensor is not None and len(tensor.shape) <= 1


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()


def _is_whole(value: ir.Value) -> bool:
    return value.dtype is not None and not value.dtype.is_floating_point()


def _holds_graphs(attribute: ir.Attr) -> bool:
    return attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)

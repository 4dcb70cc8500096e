"""Choice of the nodes of a graph that stay in floating point when it is quantised."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from calibration.base import Range
from calibration.qdq import OPERATORS, name_nodes

# Operators whose output has one scale for several inputs, with the index of the first of these.
MERGING = {"Add": 0, "Concat": 0, "Max": 0, "Min": 0, "Sub": 0, "Sum": 0, "Where": 1}
# Operators whose output has the unchanged values of their first input.
MOVING = frozenset(
    {"Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile",
     "Transpose", "Unsqueeze"}
)  # fmt: skip
UNDEFINED, FLOAT = onnx.TensorProto.UNDEFINED, onnx.TensorProto.FLOAT
# An input whose range is 16 times smaller uses only 16 of the 255 steps of an 8-bit scale.
MOST_APART = 16.0


def nodes_to_keep_in_float(
    source: Path, ranges: Mapping[str, Range], infinite: frozenset[str] = frozenset()
) -> dict[str, str]:
    """Return the nodes of a graph that should stay in floating point, with the reason.

    These are: an Add of a constant, such as a bias, which would become an 8-bit tensor; a node
    that merges inputs whose ranges differ by more than a factor of MOST_APART, such as boxes in
    pixels and scores, or scores and a mask; a node that reads a merged tensor; a node with an input
    or output that has infinite values; and a node with an input or output that has neither a range
    nor a known type, as after an If.
    """
    model = onnx.load(source)
    name_nodes(model)
    graph = model.graph
    constants = {tensor.name: _magnitude(tensor) for tensor in graph.initializer}
    sizes = {name: max(abs(found.low), abs(found.high)) for name, found in ranges.items()}
    sizes.update({name: size for name, size in constants.items() if size is not None})
    sizes.update(dict.fromkeys(infinite, np.inf))
    merged: set[str] = set()
    kept: dict[str, str] = {}
    others = _other_than_float(model)
    known = None if others is None else {"", *others, *constants, *ranges, *infinite}
    for node in graph.node:
        named = (*node.input, *node.output)
        tensors = [] if known is None else [name for name in named if name not in known]
        if tensors and node.op_type in OPERATORS:
            kept[node.name] = f"no values of {tensors[0]} were observed"
            continue
        reason = _reason(node, sizes, constants, merged)
        if reason is None:
            continue
        kept[node.name], apart = reason
        if apart:
            merged.update(node.output)
    return kept


def _reason(
    node: onnx.NodeProto,
    sizes: Mapping[str, float],
    constants: Mapping[str, float | None],
    merged: set[str],
) -> tuple[str, bool] | None:
    """Return why a node stays in floating point, and whether its output mixes distant ranges.

    Return None if the node can be quantised.
    """
    if read := [name for name in node.input if name in merged]:
        return f"it reads {read[0]}", node.op_type in MOVING
    if unlimited := [n for n in (*node.input, *node.output) if np.isinf(sizes.get(n, 0.0))]:
        return f"{unlimited[0]} has infinite values", node.op_type in (*MERGING, *MOVING)
    if node.op_type not in MERGING:
        return None
    merging = node.input[MERGING[node.op_type] :]
    inputs = {name: sizes[name] for name in merging if sizes.get(name)}
    if inputs and max(inputs.values()) > MOST_APART * min(inputs.values()):
        low, high = min(inputs, key=inputs.__getitem__), max(inputs, key=inputs.__getitem__)
        return f"{low} reaches {inputs[low]:.3g}, and {high} {inputs[high]:.3g}", True
    if node.op_type == "Add" and any(constants.get(name) is not None for name in node.input):
        return "it adds a constant", False
    return None


def _other_than_float(model: onnx.ModelProto) -> set[str] | None:
    """Return the tensors known not to be float32, and the outputs of Constant nodes.

    Return None if types cannot be inferred.
    """
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except (onnx.shape_inference.InferenceError, ValueError):  # ValueError above 2 GiB
        return None
    typed = (*graph.value_info, *graph.input, *graph.output)
    found = {v.name for v in typed if v.type.tensor_type.elem_type not in (UNDEFINED, FLOAT)}
    return found | {n for node in graph.node if node.op_type == "Constant" for n in node.output}


def _magnitude(tensor: onnx.TensorProto) -> float | None:
    """Return the largest absolute value; None if the tensor is not floating-point."""
    array = numpy_helper.to_array(tensor)
    return float(np.abs(array).max(initial=0.0)) if array.dtype.kind == "f" else None

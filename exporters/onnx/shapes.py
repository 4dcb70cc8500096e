"""Types and shapes of an ONNX graph, inferred from its inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx
import onnx.shape_inference

LARGEST_SIZE = 1 << 16  # elements of a constant from which shapes may be computed
CONTENTS = (
    "raw_data", "float_data", "int32_data", "int64_data", "uint64_data", "double_data",
    "string_data",
)  # fmt: skip
FAILURES = (onnx.shape_inference.InferenceError, RuntimeError, ValueError)


def inferred(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return the model with inferred types and shapes, or None if inference fails.

    The values of large tensors are removed from `model` itself, because inference would copy them.
    """
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) > LARGEST_SIZE:
            for content in CONTENTS:
                tensor.ClearField(content)
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except FAILURES:
        return None


def correct_outputs(model: onnx.ModelProto) -> list[str]:
    """Correct the declared shapes and types of the outputs where inference finds others.

    A missing type or rank is filled in. A declared extent is replaced if inference finds another
    number, or a named axis of an input: the declared number then holds for some inputs only. Return
    a sentence for each output that had an extent replaced. Removes the values of large tensors, as
    `inferred`.
    """
    declared = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in model.graph.output]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    found = inferred(model)
    outputs = found.graph.output if found else declared
    axes = {
        dim.dim_param
        for value in model.graph.input
        for dim in value.type.tensor_type.shape.dim
        if dim.dim_param
    }
    del model.graph.output[:]
    remarks: list[str] = []
    for told, value in zip(declared, outputs, strict=True):
        remarks += _correct(told, value, axes)
        model.graph.output.append(told)
    return remarks


def _correct(
    told: onnx.ValueInfoProto, value: onnx.ValueInfoProto, axes: set[str]
) -> Sequence[str]:
    if not is_declared(value):
        return []
    if not is_declared(told):
        told.CopyFrom(value)
        return []
    mine, theirs = told.type.tensor_type.shape.dim, value.type.tensor_type.shape.dim
    if len(mine) != len(theirs):
        return []
    before, wrong = _shape(told), False
    for dim, other in zip(mine, theirs, strict=True):
        is_other = other.dim_value != dim.dim_value if other.HasField("dim_value") else (
            other.dim_param in axes
        )  # fmt: skip
        if dim.HasField("dim_value") and is_other:
            dim.CopyFrom(other)
            wrong = True
    if not wrong:
        return []
    return [f"output {told.name} is declared as {before}, and its shape is {_shape(told)}"]


def is_declared(value: onnx.ValueInfoProto) -> bool:
    """Return whether a value is a tensor of known type and rank."""
    tensor = value.type.tensor_type
    return value.type.HasField("tensor_type") and tensor.HasField("shape") and tensor.elem_type != 0


def _shape(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    extents = (str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in dims)
    return f"[{', '.join(extents)}]"


def output_parts(model: onnx.ModelProto) -> dict[str, tuple[int, list[int]]]:
    """Return, for each output of a Concat, its axis and the extents of its parts.

    Only outputs of the graph with at least two parts of known extent are included. Removes the
    values of large tensors, as `inferred`.
    """
    found = inferred(model)
    if found is None:
        return {}
    graph = found.graph
    shapes = {
        value.name: value.type.tensor_type.shape.dim
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    shapes.update({tensor.name: _dims(tensor.dims) for tensor in graph.initializer})
    outputs = {value.name for value in graph.output}
    parts: dict[str, tuple[int, list[int]]] = {}
    for node in graph.node:
        if node.op_type == "Concat" and node.output[0] in outputs:
            axis = next(attribute.i for attribute in node.attribute if attribute.name == "axis")
            extents = [_extent(shapes.get(name, ()), axis) for name in node.input]
            if len(extents) > 1 and all(extents):
                parts[node.output[0]] = (axis, extents)
    return parts


def _dims(extents: Sequence[int]) -> list[onnx.TensorShapeProto.Dimension]:
    return [onnx.TensorShapeProto.Dimension(dim_value=extent) for extent in extents]


def _extent(dims: Sequence[onnx.TensorShapeProto.Dimension], axis: int) -> int:
    """Return the extent along an axis, or 0 if it is unknown."""
    return int(dims[axis].dim_value) if -len(dims) <= axis < len(dims) else 0

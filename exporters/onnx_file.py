"""Reading ONNX files: signature and stored tensors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from exporters.base import StoredTensor
from toolkit.core.errors import SourceError
from toolkit.core.specs import Dim, Signature, TensorSpec


def load_model(path: Path) -> onnx.ModelProto:
    """Reads a model with its external data. Raises SourceError for what is no ONNX model."""
    hint = "Give the path of an ONNX model, or of a directory that `toolkit export` wrote."
    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise SourceError(f"{path} is not an ONNX model: {error}.", hint=hint) from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise SourceError(f"{path} could not be read as ONNX: {error}.", hint=hint) from error
    # A text file can decode as an empty message, so look at what a model must have.
    if not model.graph.node and not model.graph.output:
        raise SourceError(f"{path} is not an ONNX model: it holds no graph.", hint=hint)
    return model


def read_signature(path: Path) -> Signature:
    """Inputs and outputs as the file declares them; initializers are not inputs."""
    model = load_model(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    return Signature(
        inputs=tuple(_tensor_spec(value, path) for value in inputs),
        outputs=tuple(_tensor_spec(value, path) for value in model.graph.output),
    )


def _tensor_spec(value: onnx.ValueInfoProto, path: Path) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise SourceError(
            f"{path} has an input or output {value.name!r} of type {kind}, expected a tensor.",
            hint="Only models with tensors as inputs and outputs can be run.",
        )
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(
        name=value.name,
        dtype=str(dtype),
        shape=tuple(_dim(dim) for dim in tensor.shape.dim),
    )


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.WhichOneof("value") == "dim_value":
        return int(dim.dim_value)
    return str(dim.dim_param) or None


def stored_tensors(path: Path) -> list[StoredTensor]:
    """Every initializer and constant of the main graph, and which live nodes read it.

    A node is live when a graph output depends on it: a weight that only dead nodes read is not
    part of the model.
    """
    graph = load_model(path).graph
    readers = _live_readers(graph)
    return [
        StoredTensor(name=name, array=numpy_helper.to_array(tensor), readers=readers[name])
        for name, tensor in _constants(graph)
    ]


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t


def _live_readers(graph: onnx.GraphProto) -> dict[str, tuple[str, ...]]:
    """For each value, the nodes that read it and that some graph output depends on."""
    maker = {output: node for node in graph.node for output in node.output if output}
    readers: dict[str, list[str]] = defaultdict(list)
    todo = [value.name for value in graph.output]
    seen: set[int] = set()
    while todo:
        node = maker.get(todo.pop())
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        for name in filter(None, node.input):
            readers[name].append(f"{node.name or node.output[0]} ({node.op_type})")
            todo.append(name)
    return defaultdict(tuple, {name: tuple(nodes) for name, nodes in readers.items()})

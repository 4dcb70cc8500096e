"""Reading of ONNX files: signature, precision, external files, stored tensors and live nodes."""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar, final

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from exporters.base import Description, StoredTensor, TensorReader
from exporters.onnx.quantization import quantisations
from exporters.onnx.schemas import formal_at, schema_of
from exporters.onnx.shapes import correct_outputs, inferred, is_declared, output_parts
from toolkit.core.errors import SourceError
from toolkit.core.specs import Dim, Signature, TensorSpec

FLOATS: dict[int, str] = {
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
}
# Operators that occur only in graphs with INT8 activations.
EIGHT_BITS = frozenset(
    {"ConvInteger", "DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul",
     "MatMulInteger", "MatMulIntegerToFloat", "QAttention", "QGemm", "QLinearConv",
     "QLinearMatMul", "QuantizeLinear"}
)  # fmt: skip
CONVERTING = frozenset({"Cast", "CastLike"})
# Inputs that are extents, axes or scales and need not be int64, by operator. They are no weights.
SHAPING = {"Slice": (1, 2, 3, 4), "Pad": (1, 3), "Resize": (1, 2, 3), "Upsample": (1,)}
# Inputs that are scales and zero points of quantised numbers, by operator. They are no weights.
SCALING = {"QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2)}


R = TypeVar("R")


def reads_graph(read: Callable[[Path], R]) -> Callable[[Path], R]:
    """Decorate a reader so that errors of onnx on an invalid graph become SourceError."""

    def reading(path: Path) -> R:
        try:
            return read(path)
        except (
            ArithmeticError, AttributeError, LookupError, RecursionError, RuntimeError,
            TypeError, ValueError, onnx.checker.ValidationError,
        ) as error:  # fmt: skip
            told = str(error).strip().partition("\n")[0].rstrip(".") or "no more is known"
            raise SourceError(
                f"{path} has a graph that cannot be read: {type(error).__name__}: {told}.",
                hint="The file is damaged, or was never valid: onnx.checker.check_model says more.",
            ) from error

    return functools.update_wrapper(reading, read)


def load_model(path: Path, *, external_data: bool = True) -> onnx.ModelProto:
    """Read a model, by default with its external data.

    Raises SourceError for a file that is not an ONNX model, and for external data that is missing,
    too short or outside the model's folder.
    """
    hint = "Give the path of an ONNX model, or of a directory that `toolkit export` wrote."
    try:
        model = onnx.load(path, load_external_data=False)
        if external_data:
            _locations(model, path)
            load_external_data_for_model(model, str(path.parent))
    except DecodeError as error:
        raise SourceError(f"{path} is not an ONNX model: {error}.", hint=hint) from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise SourceError(
            f"{path} could not be read as ONNX: {str(error).rstrip('.')}.", hint=hint
        ) from error
    # A text file can decode as an empty message, so check the parts that every model has.
    if not model.graph.node and not model.graph.output:
        raise SourceError(f"{path} is not an ONNX model: it holds no graph.", hint=hint)
    return model


@reads_graph
def read_signature(path: Path) -> Signature:
    """Return the signature of a model: inputs as declared, outputs as inferred.

    Outputs are corrected by `exporters.onnx.shapes.correct_outputs`. Initializers are not inputs.
    """
    model = load_model(path, external_data=False)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    correct_outputs(model)
    return Signature(
        inputs=tuple(_tensor_spec(value, path) for value in inputs),
        outputs=tuple(_tensor_spec(value, path) for value in model.graph.output),
    )


@reads_graph
def read_output_parts(path: Path) -> dict[str, tuple[int, list[int]]]:
    """Return `exporters.onnx.shapes.output_parts` of the model at `path`."""
    return output_parts(load_model(path, external_data=False))


@reads_graph
def wrong_extents(path: Path) -> list[str]:
    """Return a sentence for each output whose declared shape contradicts the inferred one."""
    return correct_outputs(load_model(path, external_data=False))


@reads_graph
def read_precision(path: Path) -> str:
    """Return `precision_of` the model at `path`."""
    return precision_of(onnx.load(path, load_external_data=False))


def precision_of(model: onnx.ModelProto) -> str:
    """Return the floating-point dtype of the stored tensors with more than one element.

    Without such tensors, return the dtype in which the nodes compute; without that, the dtype of
    the inputs and outputs. Inputs that an operator takes in float32 at any precision, such as the
    scales of Resize, are ignored. "mixed" stands for several dtypes, "none" for a graph without
    any, "int8" for a graph that quantises activations.
    """
    graph = model.graph
    inner_graphs = list(graphs(graph))
    if any(node.op_type in EIGHT_BITS for inner in inner_graphs for node in inner.node):
        return "int8"
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    fixed = {name for inner in inner_graphs for node in inner.node for name in _fixed(node, opsets)}
    stored = [
        pair for inner in inner_graphs for pair in _stored_types(inner) if pair[0] not in fixed
    ]
    kinds = {kind for _, kind in stored}
    if kinds.isdisjoint(FLOATS):
        kinds = _computed_types(model)
    if kinds.isdisjoint(FLOATS):
        kinds = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    found = {FLOATS[kind] for kind in kinds if kind in FLOATS}
    return found.pop() if len(found) == 1 else "mixed" if found else "none"


def _computed_types(model: onnx.ModelProto) -> set[int]:
    """Return the element types of node outputs in the main graph, except those of casts."""
    model = inferred(model) or model
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return {
        types[name]
        for node in model.graph.node
        if node.op_type not in CONVERTING
        for name in node.output
        if name in types
    }


def _stored_types(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    """Yield the name and type of each stored tensor with more than one element."""
    tensors = [(tensor.name, tensor) for tensor in graph.initializer]
    for node in graph.node:
        if node.op_type == "Constant":
            tensors += [(node.output[0], a.t) for a in node.attribute if a.HasField("t")]
            yield from (
                (node.output[0], onnx.TensorProto.FLOAT)
                for attribute in node.attribute
                if len(attribute.floats) > 1
            )
    yield from ((name, held.data_type) for name, held in tensors if math.prod(held.dims) > 1)


def _fixed(node: onnx.NodeProto, opsets: Mapping[str, int]) -> Iterator[str]:
    """Yield the inputs of a node that its schema allows in float32 only."""
    schema = schema_of(node.op_type, node.domain, opsets)
    if schema is None:
        return
    for place, name in enumerate(node.input):
        formal = formal_at(schema.inputs, place)
        if formal is not None and formal.types == {"tensor(float)"}:
            yield name


@reads_graph
def external_files(path: Path) -> list[str]:
    """Return the files beside the model that hold its external data, without reading them.

    Raises SourceError for a file that is missing, too short, or outside the model's folder.
    """
    return _locations(onnx.load(path, load_external_data=False), path)


def _locations(model: onnx.ModelProto, path: Path) -> list[str]:
    """Return the files of external data. Raises SourceError as `external_files`."""
    return sorted({_location(t, path) for t in _tensors(model) if uses_external_data(t)})


def _location(tensor: onnx.TensorProto, path: Path) -> str:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    needed = int(entries.get("offset", 0)) + int(entries.get("length", 0))
    place, written = path.parent / location, Path(location)
    if "\0" in location or not written.name or written.is_absolute() or ".." in written.parts:
        reason = "is not in its folder"
    elif not place.resolve().is_relative_to(path.parent.resolve()):
        reason = "leads out of its folder"
    elif not place.is_file():
        reason = "is missing"
    elif place.stat().st_size < needed:
        reason = f"has {place.stat().st_size} bytes of the {needed} that are needed"
    else:
        return location
    raise SourceError(
        f"{path} has the external data of {tensor.name!r} in {location!r}, which {reason}.",
        hint="Put the files of the model beside it, as its exporter wrote them.",
    )


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield all tensors of a model: initializers and node attributes, also those of functions."""
    for graph in graphs(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        yield from _held_by(graph.node)
    for function in model.functions:
        yield from _held_by(function.node)


def _held_by(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _tensor_spec(value: onnx.ValueInfoProto, path: Path) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    tensor = value.type.tensor_type
    if not is_declared(value):
        raise SourceError(
            f"{path} has an input or output {value.name!r} of unknown type or rank ({kind}).",
            hint="Only models whose inputs and outputs are tensors of known rank can be run; "
            "onnx.shape_inference may find the rank.",
        )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(
        name=value.name,
        dtype=str(dtype),
        shape=tuple(_dim(dim) for dim in tensor.shape.dim),
    )


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.WhichOneof("value") == "dim_value":
        return int(dim.dim_value) if dim.dim_value > 0 else None
    return None if dim.dim_param in ("", "?") else str(dim.dim_param)


@reads_graph
def constant_names(path: Path) -> set[str]:
    """Return the names of all initializers and constants, including those of subgraphs."""
    return {name for graph in graphs(load_model(path).graph) for name, _ in _constants(graph)}


@reads_graph
def node_inputs(path: Path) -> dict[str, list[str]]:
    """Return the inputs of each node by node name, including nodes of subgraphs.

    A node without a name is listed as `node_of_` and its first output, as in TensorRT. Names that
    several nodes have are left out.
    """
    graph = load_model(path, external_data=False).graph
    nodes = [node for inner in graphs(graph) for node in inner.node]
    names = [node.name or f"node_of_{node.output[0]}" for node in nodes]
    once = {name for name, count in Counter(names).items() if count == 1}
    return {name: list(node.input) for name, node in zip(names, nodes, strict=True) if name in once}


@final
class OnnxTensors(TensorReader):
    def stored_tensors(self, path: Path) -> list[StoredTensor]:
        return stored_tensors(path)

    def operators(self, path: Path) -> Mapping[str, int]:
        return _operators(path)

    def describe(self, path: Path) -> Description:
        return Description(
            signature=read_signature(path),
            precision=read_precision(path),
            directory=path.parent,
            entry=path.name,
            files=[path.name, *external_files(path)],
        )


@reads_graph
def _operators(path: Path) -> Mapping[str, int]:
    graph = load_model(path, external_data=False).graph
    return Counter(
        f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        for inner in graphs(graph)
        for node in inner.node
        if node.op_type != "Constant"
    )


@reads_graph
def stored_tensors(path: Path) -> list[StoredTensor]:
    """Return every initializer and constant, including those of subgraphs, and its live readers.

    A node is live if a graph output depends on it: a weight that only dead nodes read is not part
    of the model. Values that a subgraph reads count as read by the node that contains it.
    """
    model = load_model(path)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    readers = _live_readers(model.graph)
    stored = [pair for graph in graphs(model.graph) for pair in _constants(graph)]
    meant = quantisations(model.graph, dict(stored))
    scales = {
        node.input[place]
        for node in live_nodes(model.graph)
        for place in SCALING.get(node.op_type, ())
        if place < len(node.input)
    }
    return [
        StoredTensor(
            name=name,
            array=array,
            readers=readers.get(name, ()),
            quantisation=meant.get(name),
            scaling=name in scales,
        )
        for name, array in stored
    ]


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph, and the subgraphs of its nodes at any depth."""
    yield graph
    for node in graph.node:
        for inner in bodies(node):
            yield from graphs(inner)


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the subgraphs of a node: the branches of an If, the body of a Loop or Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, np.ndarray]]:
    for tensor in graph.initializer:
        _check_size(tensor)
        yield tensor.name, numpy_helper.to_array(tensor)
    for sparse in graph.sparse_initializer:
        yield sparse.values.name, numpy_helper.to_array(sparse.values)
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                yield node.output[0], _attribute_array(attribute)


def _check_size(tensor: onnx.TensorProto) -> None:
    """Raise ValueError if a tensor's shape does not match the size of its raw data.

    This avoids allocating memory for a size that the file only claims.
    """
    if tensor.HasField("raw_data"):
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        claimed = math.prod(tensor.dims) * dtype.itemsize
        packed = dtype.name.endswith(("int4", "e2m1fn", "int2"))  # several elements per byte
        if min(tensor.dims, default=0) < 0 or (
            claimed != len(tensor.raw_data) and not (packed and claimed > len(tensor.raw_data))
        ):
            raise ValueError(
                f"tensor {tensor.name!r} has shape {list(tensor.dims)} of {dtype.name}, and "
                f"{len(tensor.raw_data)} bytes"
            )


def _attribute_array(attribute: onnx.AttributeProto) -> np.ndarray:
    """Return the value of a Constant node, whichever attribute holds it."""
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, onnx.SparseTensorProto):
        return numpy_helper.to_array(value.values)
    dtype = {"value_float": np.float32, "value_floats": np.float32}.get(attribute.name)
    return np.array(value, dtype)


def _live_readers(graph: onnx.GraphProto) -> dict[str, tuple[str, ...]]:
    """Return the live nodes that read each value, without reads listed in SHAPING and SCALING."""
    readers: dict[str, list[str]] = defaultdict(list)
    for value in graph.output:
        readers[value.name].append("graph output")
    for node in live_nodes(graph):
        places = {**SHAPING, **SCALING}.get(node.op_type, ())
        shaping = {node.input[place] for place in places if place < len(node.input)}
        for name in reads(node):
            if name in shaping:
                continue
            readers[name].append(f"{node.name or node.output[0]} ({node.op_type})")
    return {name: tuple(nodes) for name, nodes in readers.items()}


def live_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes that a graph output depends on, in the order of the graph."""
    nodes = list(graph.node)
    maker = {output: place for place, node in enumerate(nodes) for output in node.output if output}
    todo = [value.name for value in graph.output]
    live: set[int] = set()
    while todo:
        place = maker.get(todo.pop())
        if place is not None and place not in live:
            live.add(place)
            todo += reads(nodes[place])
    return [nodes[place] for place in sorted(live)]


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the values that a node reads: its inputs, and those that its subgraphs read."""
    yield from filter(None, node.input)
    for body in bodies(node):
        for inner in body.node:
            yield from reads(inner)
        yield from (value.name for value in body.output)

"""Reading ONNX files: signature and stored tensors."""

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
from exporters.onnx_quantisation import quantisations
from exporters.onnx_schemas import formal_at, schema_of
from exporters.onnx_shapes import correct_outputs, inferred, is_declared, output_parts
from toolkit.core.errors import SourceError
from toolkit.core.specs import Dim, Signature, TensorSpec

FLOATS: dict[int, str] = {
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
}
# Operators that a graph has whose activations are of eight bits.
EIGHT_BITS = frozenset(
    {"ConvInteger", "DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul",
     "MatMulInteger", "MatMulIntegerToFloat", "QAttention", "QGemm", "QLinearConv",
     "QLinearMatMul", "QuantizeLinear"}
)  # fmt: skip
CONVERTING = frozenset({"Cast", "CastLike"})
# Where an operator takes extents or axes that need not be int64: no weights.
SHAPING = {"Slice": (1, 2, 3, 4), "Pad": (1, 3), "Resize": (1, 2, 3), "Upsample": (1,)}
# What says how numbers of few bits are meant: no weights either.
SCALING = {"QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2)}


R = TypeVar("R")


def reads_graph(read: Callable[[Path], R]) -> Callable[[Path], R]:
    """Turns what onnx raises on a graph that cannot be meant into a SourceError."""

    def reading(path: Path) -> R:
        try:
            return read(path)
        except (
            ArithmeticError, AttributeError, LookupError, RecursionError, RuntimeError,
            TypeError, ValueError, onnx.checker.ValidationError,
        ) as error:  # fmt: skip
            told = str(error).strip().partition("\n")[0].rstrip(".") or "no more is known"
            raise SourceError(
                f"{path} is no graph that can be followed: {type(error).__name__}: {told}.",
                hint="The file is damaged, or was never valid: onnx.checker.check_model says more.",
            ) from error

    return functools.update_wrapper(reading, read)


def load_model(path: Path, *, external_data: bool = True) -> onnx.ModelProto:
    """Read a model with its external data.

    Raises SourceError for what is no ONNX model, and for external data out of its folder.
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
    # A text file can decode as an empty message, so look at what a model must have.
    if not model.graph.node and not model.graph.output:
        raise SourceError(f"{path} is not an ONNX model: it holds no graph.", hint=hint)
    return model


@reads_graph
def read_signature(path: Path) -> Signature:
    """Inputs as the file declares them; outputs as `exporters.onnx_shapes.correct_outputs` finds
    them. Initializers are not inputs."""
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
    """As `exporters.onnx_shapes.output_parts`."""
    return output_parts(load_model(path, external_data=False))


@reads_graph
def wrong_extents(path: Path) -> list[str]:
    """Return a sentence for each output whose declared shape does not follow from the inputs."""
    return correct_outputs(load_model(path, external_data=False))


@reads_graph
def read_precision(path: Path) -> str:
    """As `precision_of`."""
    return precision_of(onnx.load(path, load_external_data=False))


def precision_of(model: onnx.ModelProto) -> str:
    """The floating-point dtype of what the graph stores, of more than one element; where it stores
    nothing, that in which its nodes compute, or of its inputs and outputs if none does.

    What an operator takes in float32 whatever it computes in, such as Resize's scales, is left out.
    "mixed" for several, "none" for a graph without any; "int8" for one that quantises activations.
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
    """The element types of what the nodes give, without those that convert."""
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
    """The names and types of the tensors of more than one element that a graph holds."""
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
    """What a node takes in float32 at any precision, by its schema."""
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

    Raises SourceError for one that is missing, too short, or not in the folder of the model.
    """
    return _locations(onnx.load(path, load_external_data=False), path)


def _locations(model: onnx.ModelProto, path: Path) -> list[str]:
    """Return where external data is. Raise SourceError as `external_files`."""
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
    """Yield all tensors of a model: initializers, and attributes of nodes, in functions too."""
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
    """Those of all initializers and constants, in subgraphs too."""
    return {name for graph in graphs(load_model(path).graph) for name, _ in _constants(graph)}


@reads_graph
def node_inputs(path: Path) -> dict[str, list[str]]:
    """What each node takes, in subgraphs too, by its name; that of one without any is
    `node_of_` and its first output, as in TensorRT. Left out where several have one name."""
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
    """Every initializer and constant, those of subgraphs too, and which live nodes read it.

    A node is live when a graph output depends on it: a weight that only dead nodes read is not
    part of the model. What a subgraph reads counts as read by the node that holds it.
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
    """The graph, and those in the attributes of its nodes, at any depth."""
    yield graph
    for node in graph.node:
        for inner in bodies(node):
            yield from graphs(inner)


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The branches of an If, the body of a Loop or Scan."""
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
    """Raises ValueError where the shape asks for another size than the bytes that are there, so
    that nothing is allocated for what a file only claims."""
    if tensor.HasField("raw_data"):
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        claimed = math.prod(tensor.dims) * dtype.itemsize
        packed = dtype.name.endswith(("int4", "e2m1fn", "int2"))  # several to a byte
        if min(tensor.dims, default=0) < 0 or (
            claimed != len(tensor.raw_data) and not (packed and claimed > len(tensor.raw_data))
        ):
            raise ValueError(
                f"tensor {tensor.name!r} has shape {list(tensor.dims)} of {dtype.name}, and "
                f"{len(tensor.raw_data)} bytes"
            )


def _attribute_array(attribute: onnx.AttributeProto) -> np.ndarray:
    """The value of a Constant node, in whichever of its attributes it stands."""
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, onnx.SparseTensorProto):
        return numpy_helper.to_array(value.values)
    dtype = {"value_float": np.float32, "value_floats": np.float32}.get(attribute.name)
    return np.array(value, dtype)


def _live_readers(graph: onnx.GraphProto) -> dict[str, tuple[str, ...]]:
    """For each value, the live nodes that read it."""
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
    """The nodes that some graph output depends on, in the order of the graph."""
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
    """The values that a node takes: its inputs, and what its subgraphs read."""
    yield from filter(None, node.input)
    for body in bodies(node):
        for inner in body.node:
            yield from reads(inner)
        yield from (value.name for value in body.output)

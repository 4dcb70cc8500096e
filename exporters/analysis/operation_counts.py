"""Operation and byte counts of an ONNX graph at given input shapes.

Whatever cannot be counted is reported by operator, never estimated: nodes whose shapes cannot be
inferred, the bodies of loops and branches, custom operators. Nodes that depend on constants alone
count nothing, because every runtime computes them once, when it loads the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import final

import onnx
import onnx.external_data_helper
import onnx.inliner
import onnx.shape_inference

from exporters.analysis.operator_costs import STANDARD, Shape, count_operations, is_product
from exporters.onnx.reader import bodies, live_nodes, load_model, reads
from toolkit.core.errors import SourceError, UsageError
from toolkit.core.import_isolation import toolkit_imports
from toolkit.core.work import Work

LARGEST_SHAPE = 1024  # elements of a constant whose values shape inference may need
VALUES = (
    "raw_data", "float_data", "double_data", "int32_data", "int64_data", "uint64_data",
    "string_data",
)  # fmt: skip
PACKED_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
# Operators that need no copy, that read only the elements they return, and that read no element.
VIEWS = frozenset({"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
PICKS = frozenset({"Gather", "GatherElements", "GatherND", "Slice"})
ASKS = frozenset({"Shape", "Size"})
RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
     "RandomUniformLike"}
)  # fmt: skip


def count_work(path: Path, shapes: Mapping[str, Sequence[int]]) -> Work:
    """Count the operations and bytes of one forward pass of the model at `path`.

    `shapes` are those of its inputs, by name. Raises UsageError for shapes that do not fit the
    inputs, and SourceError for a file that is not a model or whose shapes cannot be inferred.
    """
    model = load_model(path, external_data=False)
    axes = _fix_inputs(model.graph, shapes)
    try:
        _keep_small_values(model.graph, path.parent)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        graph = _infer(model, axes).graph
    except Exception as error:  # onnx's errors here have no common base class
        raise SourceError(
            f"The shapes in {path} could not be inferred: {error}",
            hint="Check the file with onnx.checker.check_model(path, full_check=True).",
        ) from error
    return _Count(graph, list(shapes)).work()


@final
@dataclass(frozen=True)
class _Tensor:
    shape: Shape
    bits: int  # per element

    @property
    def size_bytes(self) -> int:
        return (prod(self.shape) * self.bits + 7) // 8


@final
class _Count:
    """Sums over the live nodes of a graph whose shapes were inferred."""

    def __init__(self, graph: onnx.GraphProto, inputs: Sequence[str]) -> None:
        self._outputs = [value.name for value in graph.output]
        self._tensors = dict(_tensors(graph))
        self._shapes = {name: tensor.shape for name, tensor in self._tensors.items()}
        self._nodes = live_nodes(graph)
        stored = {tensor.name for tensor in graph.initializer}
        stored |= {node.output[0] for node in self._nodes if node.op_type == "Constant"}
        self._resident = (*inputs, *stored)
        self._constant = _constants(self._nodes, stored)

    def work(self) -> Work:
        at_run_time = [node for node in self._nodes if not self._constant.issuperset(node.output)]
        matrix = other = moved = 0
        known = True
        uncounted: Counter[str] = Counter()
        for node in at_run_time:
            operations, size = count_operations(node, self._shapes), self._traffic(node)
            if operations is None or size is None:
                own = () if node.domain in STANDARD else (node.domain,)
                uncounted[".".join((*own, node.op_type))] += 1
            if operations is None:
                known &= not any(map(is_product, _with_bodies(node)))
            matrix += operations.matrix if operations else 0
            other += operations.other if operations else 0
            moved += size or 0
        return Work(
            matrix_operations=matrix if known else None,
            other_operations=other,
            least_bytes=self._least(),
            unfused_bytes=moved,
            uncounted=dict(sorted(uncounted.items())),
        )

    def _traffic(self, node: onnx.NodeProto) -> int | None:
        """Return the bytes that a node reads and writes, None if a size is unknown."""
        try:
            taken = sum(self._taken(node, name) for name in filter(None, node.input))
            given = sum(self._tensors[name].size_bytes for name in filter(None, node.output))
        except KeyError:
            return None
        return 0 if node.domain in STANDARD and node.op_type in VIEWS else taken + given

    def _taken(self, node: onnx.NodeProto, name: str) -> int:
        """Return the bytes of one input that a node reads. Raises KeyError if a size is unknown."""
        size = self._tensors[name].size_bytes
        if node.domain in STANDARD and name == node.input[0]:
            if node.op_type in ASKS:
                return 0
            if node.op_type in PICKS:
                return min(size, self._tensors[node.output[0]].size_bytes)
        return size

    def _least(self) -> int:
        """Return the least bytes to move: inputs and stored tensors read once, and the outputs.

        A tensor of which the nodes read only a part counts for that part.
        """
        wanted: Counter[str] = Counter()
        for node in self._nodes:
            for name in reads(node):
                if name in self._tensors:
                    try:
                        wanted[name] += self._taken(node, name)
                    except KeyError:
                        wanted[name] += self._tensors[name].size_bytes
        sizes = {name: tensor.size_bytes for name, tensor in self._tensors.items()}
        read = sum(min(sizes[name], wanted[name]) for name in self._resident if name in sizes)
        return read + sum(sizes.get(name, 0) for name in self._outputs)


def _with_bodies(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Yield a node, and the nodes of its subgraphs at any depth."""
    yield node
    for body in bodies(node):
        for inner in body.node:
            yield from _with_bodies(inner)


def _constants(nodes: Sequence[onnx.NodeProto], stored: set[str]) -> set[str]:
    """Return the values that standard operators compute from stored tensors alone."""
    constant = {"", *stored}  # an omitted output has an empty name
    for node in nodes:
        fixed = node.domain in STANDARD and node.op_type not in RANDOM
        if fixed and constant.issuperset(reads(node)):
            constant.update(node.output)
    return constant


def _keep_small_values(graph: onnx.GraphProto, directory: Path) -> None:
    """Load external tensors that may be shapes, and drop the values of all larger tensors.

    A model of any size then fits into the 2 GB that shape inference accepts.
    """
    for tensor in graph.initializer:
        if prod(tensor.dims) > LARGEST_SHAPE:
            for field in VALUES:
                tensor.ClearField(field)
        elif onnx.external_data_helper.uses_external_data(tensor):
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(directory))
            tensor.data_location = onnx.TensorProto.DEFAULT
            tensor.ClearField("external_data")


def _fix_inputs(graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Set the extents of the graph's inputs, and return the extents of the named axes."""
    stored = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in stored}
    if inputs.keys() != shapes.keys():
        raise UsageError(
            f"Got shapes of {sorted(shapes)}, expected those of the inputs {sorted(inputs)}.",
            hint="Give a shape for each input.",
        )
    axes: dict[str, int] = {}
    for name, value in inputs.items():
        dims = value.type.tensor_type.shape.dim
        fits = len(dims) == len(shapes[name]) and all(
            (axes.setdefault(dim.dim_param, extent) if dim.dim_param else dim.dim_value or extent)
            == extent
            for dim, extent in zip(dims, shapes[name], strict=True)
        )
        if not fits:
            declared = [dim.dim_param or dim.dim_value or None for dim in dims]
            raise UsageError(
                f"Got shape {list(shapes[name])} for input {name!r}, expected {declared}.",
                hint="Axes with the same name must have the same extent.",
            )
        for dim, extent in zip(dims, shapes[name], strict=True):
            dim.dim_value = extent
    return axes


def _infer(model: onnx.ModelProto, axes: Mapping[str, int]) -> onnx.ModelProto:
    """Return the model with the shapes that follow from those of its inputs.

    Shapes that the file declares for other values are used only where inference finds none, because
    they are often left over from another batch.
    """
    said = [*_copies(model.graph.value_info), *_copies(model.graph.output)]
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    if not _unknown(inferred.graph):
        return inferred
    model = _folded(model)
    unknown = _unknown(model.graph)
    helpful = {v.name: v for v in said if v.name in unknown and _tensor(_bind(v, axes))}
    model.graph.value_info.extend(helpful.values())
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its shape arithmetic folded, or unchanged if folding fails.

    onnx does not follow this arithmetic through a Reshape, among others.
    """
    with toolkit_imports():
        import onnx_ir as ir

        from exporters.passes.extents import fold_extents

    try:
        graph = ir.from_proto(model)
        fold_extents(graph)
        return ir.to_proto(graph)
    except Exception:  # onnxscript's errors have no common base class
        return model


def _unknown(graph: onnx.GraphProto) -> set[str]:
    """Return the values of live nodes whose shapes are unknown."""
    known = {name for name, _ in _tensors(graph)}
    made = {name for node in live_nodes(graph) for name in node.output if name}
    return made - known


def _copies(values: Iterable[onnx.ValueInfoProto]) -> list[onnx.ValueInfoProto]:
    copies = []
    for value in values:
        copies.append(onnx.ValueInfoProto())
        copies[-1].CopyFrom(value)
    return copies


def _bind(value: onnx.ValueInfoProto, axes: Mapping[str, int]) -> onnx.ValueInfoProto:
    """Set the extents of a value's named axes where they are known, and return the value."""
    for dim in value.type.tensor_type.shape.dim:
        if dim.dim_param in axes:
            dim.dim_value = axes[dim.dim_param]
    return value


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, _Tensor]]:
    """Yield the values of the graph whose shape and type are known."""
    for value in (*graph.input, *graph.value_info, *graph.output):
        if (found := _tensor(value)) is not None:
            yield value.name, found
    for stored in graph.initializer:
        bits = _bits(stored.data_type)
        if bits is not None:
            yield stored.name, _Tensor(tuple(stored.dims), bits)


def _tensor(value: onnx.ValueInfoProto) -> _Tensor | None:
    tensor = value.type.tensor_type
    bits = _bits(tensor.elem_type)
    dims = tensor.shape.dim
    known = tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in dims)
    return _Tensor(tuple(dim.dim_value for dim in dims), bits) if known and bits else None


def _bits(data_type: int) -> int | None:
    """Return the bits of one element, None for strings and unknown types."""
    if data_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return None
    name = onnx.TensorProto.DataType.Name(data_type)
    if name in PACKED_BITS:
        return PACKED_BITS[name]
    return 8 * onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize

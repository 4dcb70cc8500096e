"""Ranges of values that a graph expects of its inputs, as far as its operators show them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
from onnx import numpy_helper

from exporters.onnx.reader import bodies, load_model, reads_graph
from exporters.onnx.shapes import LARGEST_SIZE, inferred

# Operators whose output contains values of their first input, in any shape.
VALUE_KEEPING = frozenset(
    {"Cast", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape",
     "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)  # fmt: skip
# Operators whose output contains values of several inputs, with the index of the first of these.
# The first input of Where is a condition.
MERGING = {"Concat": 0, "Max": 0, "Min": 0, "Where": 1}

Range = tuple[int, int]


@reads_graph
def input_ranges(path: Path) -> dict[str, Range]:
    """Return the range of each input that holds indices, classes or categories.

    A range is the least value and the first value that is too large. An input that reaches the
    indices of a Gather or OneHot must be within the indexed extent. An input that is compared with
    a constant by Equal, or limited by Clip, should reach that constant, so that both outcomes
    occur. Values are followed through casts, changes of shape, and sums with constants. Inputs
    without such a use are left out.
    """
    model = load_model(path, external_data=False)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    return _Ranges(model).found()


class _Ranges:
    """Walk over a graph that collects the ranges of its inputs.

    `_origins` maps each value to the inputs whose values it contains, each with the sum of the
    constants added on the way.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        stored = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self._constants = dict(_small_constants(graph))
        self._shapes = {**_inferred(model), **stored}
        self._origins: dict[str, set[tuple[str, int]]] = {
            value.name: {(value.name, 0)} for value in graph.input if value.name not in stored
        }
        self._needed: dict[str, list[Range]] = defaultdict(list)
        self._wanted: dict[str, list[Range]] = defaultdict(list)
        self._walk(graph.node)

    def found(self) -> dict[str, Range]:
        """Return the range of each input: what indexing requires, else what comparisons suggest."""
        ranges = {
            name: (min(low for low, _ in wanted), max(high for _, high in wanted))
            for name, wanted in self._wanted.items()
        }
        for name, needed in self._needed.items():
            ranges[name] = (max(low for low, _ in needed), min(high for _, high in needed))
        return {name: (low, high) for name, (low, high) in ranges.items() if low < high}

    def _walk(self, nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            self._follow(node)
            self._note(node)
            for body in bodies(node):
                self._walk(body.node)

    def _follow(self, node: onnx.NodeProto) -> None:
        """Record the inputs whose values the outputs of a node contain."""
        kind, inputs = node.op_type, node.input
        held: set[tuple[str, int]] = set()
        if kind in VALUE_KEEPING:
            held = self._of(inputs[0])
        elif kind in MERGING:
            held = set().union(*(self._of(name) for name in inputs[MERGING[kind] :]))
        elif kind in ("Add", "Sub"):
            for name, other, sign in ((inputs[0], inputs[1], 1), (inputs[1], inputs[0], -1)):
                added = self._whole(other)
                if added is not None and (kind == "Add" or sign > 0):
                    added = added if kind == "Add" else -added
                    held |= {(origin, offset + added) for origin, offset in self._of(name)}
        if held:
            self._origins.update(dict.fromkeys(node.output, held))

    def _note(self, node: onnx.NodeProto) -> None:
        """Record the ranges that a node asks of the inputs that reach it."""
        kind, inputs = node.op_type, node.input
        if kind in ("Gather", "GatherElements") and len(inputs) > 1:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            shape = self._shapes.get(inputs[0])
            if shape and -len(shape) <= axis < len(shape) and isinstance(shape[axis], int):
                self._record(self._needed, inputs[1], 0, shape[axis])
        elif kind == "OneHot" and (depth := self._whole(inputs[1])) is not None:
            self._record(self._needed, inputs[0], 0, depth)
        elif kind == "Equal":
            for name, other in ((inputs[0], inputs[1]), (inputs[1], inputs[0])):
                if (value := self._whole(other)) is not None and 0 <= value < LARGEST_SIZE:
                    self._record(self._wanted, name, 0, max(value + 1, 2))
        elif kind == "Clip" and len(inputs) > 2:
            low, high = self._whole(inputs[1]), self._whole(inputs[2])
            if low is not None and high is not None and low < high:
                self._record(self._wanted, inputs[0], low, high + 1)

    def _record(self, into: dict[str, list[Range]], name: str, low: int, high: int) -> None:
        for origin, offset in self._of(name):
            into[origin].append((max(low - offset, 0), high - offset))

    def _of(self, name: str) -> set[tuple[str, int]]:
        return self._origins.get(name, set())

    def _whole(self, name: str) -> int | None:
        """Return the integer that all elements of a constant equal, or None."""
        array = self._constants.get(name)
        if array is None or not array.size or array.dtype.kind not in "iuf":
            return None
        first = array.flat[0]
        if not np.isfinite(first) or first != np.floor(first) or not (array == first).all():
            return None
        return int(first)


def _small_constants(graph: onnx.GraphProto) -> Iterator[tuple[str, np.ndarray]]:
    for tensor in graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL and _size(tensor) <= LARGEST_SIZE:
            yield tensor.name, numpy_helper.to_array(tensor)
    for node in graph.node:
        if node.op_type == "Constant" and len(node.attribute) == 1:
            value = onnx.helper.get_attribute_value(node.attribute[0])
            if isinstance(value, onnx.TensorProto):
                if value.data_location != onnx.TensorProto.EXTERNAL:
                    yield node.output[0], numpy_helper.to_array(value)
            elif isinstance(value, int | float):
                yield node.output[0], np.array(value)


def _size(tensor: onnx.TensorProto) -> int:
    return int(np.prod(tensor.dims, dtype=object))


def _inferred(model: onnx.ModelProto) -> Mapping[str, tuple[int | str | None, ...]]:
    """Return the inferred shape of each intermediate value, with None for unknown extents."""
    found = inferred(model)
    if found is None:
        return {}
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else None
            for dim in value.type.tensor_type.shape.dim
        )
        for value in found.graph.value_info
        if value.type.HasField("tensor_type")
    }

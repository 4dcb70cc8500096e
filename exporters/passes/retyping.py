"""Conversion of float32 values to another dtype, node by node, with Casts where dtypes meet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import ml_dtypes
import numpy as np
import onnx_ir as ir

from exporters.passes.constants import DOMAIN, is_operator
from exporters.passes.extents import extents
from exporters.passes.schemas import Slots, slots_of

FLOAT = ir.DataType.FLOAT
# Operators that take any dtype and return another: their first input needs no conversion.
TAKES_ANY = frozenset(
    {"Cast", "CastLike", "EyeLike", "RandomNormalLike", "RandomUniformLike", "Shape", "Size"}
)
# Attributes that name the dtype of an output.
NAMES_DTYPE = ("dtype", "output_dtype", "output_datatype")
# Operators whose subgraphs compute in the same dtype as the enclosing graph.
BRANCHING = frozenset({"If", "Loop", "Scan"})


class Retyping:
    """Conversion of the float32 values of one model.

    A value keeps its name, and becomes `target` if its node returns that. `_versions` holds each
    value in the other dtype, created when it is first read in that dtype.
    """

    def __init__(self, model: ir.Model, target: ir.DataType) -> None:
        self._graph = model.graph
        self._opsets = model.graph.opset_imports
        self._target = target
        self._extents = extents(model)
        self._floats = {value for value in _values(model) if _dtype(value) == FLOAT}
        self._names = {value.name for value in _values(model)}
        self._versions: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._changed = False

    def run(self, *, borders: bool) -> bool:
        """Convert the graph, and its inputs and outputs if `borders`. Return whether it changed."""
        border = self._target if borders else FLOAT
        self._give(self._graph.inputs, border)
        self._walk(self._graph)
        for place, value in enumerate(self._graph.outputs):
            if value in self._floats:
                self._graph.outputs[place] = self._named(value, self._as(value, border))
        self._settle_constants()
        return self._changed

    def _walk(self, graph: ir.Graph) -> None:
        for node in list(graph):
            slots = slots_of(node, self._opsets)
            bodies = list(_bodies(node))
            if bodies:
                self._branching(node, bodies, slots)
            elif is_operator(node, "Constant"):
                pass  # stored again in the dtype in which it is read
            elif slots is None or self._keeps(node):
                self._take(node, FLOAT)
            else:
                self._plain(node, slots)

    def _keeps(self, node: ir.Node) -> bool:
        """Return whether a node computes in float32 even if its schema allows other dtypes."""
        arithmetic = any(value in self._extents for value in node.outputs)
        return (
            (arithmetic and node.op_type not in TAKES_ANY)
            or node.op_type == "BitCast"
            or any(map(_is_compound, (*node.inputs, *node.outputs)))
            or any(_ties(node, attribute) for attribute in node.attributes.values())
        )

    def _plain(self, node: ir.Node, slots: Slots) -> None:
        self._infer(node, slots)
        for place, (value, slot) in enumerate(zip(node.inputs, slots.inputs, strict=True)):
            if value in self._floats:
                as_it_is = place == 0 and node.op_type in TAKES_ANY and slot.admits(_dtype(value))
                wanted = self._target if slot.admits(self._target) else FLOAT
                if not as_it_is:
                    self._put(node, place, self._as(value, wanted))
        taken = {slot.variable for slot in slots.inputs}
        for value, slot in zip(node.outputs, slots.outputs, strict=True):
            if value not in self._floats or is_operator(node, "Cast"):
                continue
            wanted = self._target if slot.admits(self._target) else FLOAT
            if slot.variable is None or slot.variable in taken:
                self._give([value], wanted)
            else:
                self._give_by_attribute(node, slots, value, wanted)

    def _give_by_attribute(
        self, node: ir.Node, slots: Slots, value: ir.Value, wanted: ir.DataType
    ) -> None:
        """Set the dtype of an output that no input determines, if an attribute can state it."""
        name = next((name for name in NAMES_DTYPE if name in slots.attributes), None)
        if is_operator(node, "ConstantOfShape"):
            held = node.attributes.get_tensor("value")
            array = np.zeros(1, np.float32) if held is None else held.numpy()
            tensor = ir.tensor(rounded(array, wanted))
            node.attributes.add(ir.AttrTensor("value", tensor))
        elif name is not None:
            node.attributes.add(ir.AttrInt64(name, int(wanted)))
        else:
            return
        self._give([value], wanted)

    def _branching(self, node: ir.Node, bodies: list[ir.Graph], slots: Slots | None) -> None:
        known = node.domain == DOMAIN and node.op_type in BRANCHING and slots is not None
        admits = known and slots is not None and any(s.admits(self._target) for s in slots.outputs)
        wanted = self._target if admits else FLOAT
        self._take(node, wanted)
        for body in bodies:
            self._give(body.inputs, wanted)
            self._walk(body)
            ahead = int(node.op_type == "Loop")  # the first output of its body is the condition
            for given, value in zip(node.outputs, body.outputs[ahead:], strict=False):
                if known and value.type is None and given in self._floats:
                    self._mark(value)
            for place, value in enumerate(body.outputs):
                if value in self._floats:
                    body.outputs[place] = self._as(value, wanted)
        self._give(node.outputs, wanted)

    def _infer(self, node: ir.Node, slots: Slots) -> None:
        """Mark untyped inputs and outputs of a node as float32 if its other types imply it.

        Values that a custom operator computes have no inferred type.
        """
        both = [*zip(node.inputs, slots.inputs, strict=True)]
        both += zip(node.outputs, slots.outputs, strict=True)
        floats = {slot.variable for value, slot in both if value in self._floats}
        for value, slot in both:
            fixed = slot.types == {"tensor(float)"}
            told = fixed or (slot.variable is not None and slot.variable in floats)
            if value is not None and value.type is None and told:
                self._mark(value)

    def _mark(self, value: ir.Value) -> None:
        self._floats.add(value)
        value.dtype = FLOAT

    def _take(self, node: ir.Node, dtype: ir.DataType) -> None:
        for place, value in enumerate(node.inputs):
            if value in self._floats:
                self._put(node, place, self._as(value, dtype))

    def _put(self, node: ir.Node, place: int, value: ir.Value) -> None:
        if node.inputs[place] is not value:
            node.replace_input_with(place, value)
            self._changed = True

    def _give(self, values: Iterable[ir.Value], dtype: ir.DataType) -> None:
        for value in values:
            if value in self._floats and value.dtype != dtype:
                value.dtype = dtype
                self._changed = True

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Return a value that was float32 as a value of `dtype`."""
        if _dtype(value) == dtype:
            return value
        key = (value, dtype)
        if key not in self._versions:
            self._versions[key] = self._converted(value, dtype)
        return self._versions[key]

    def _converted(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is not None:
            return self._stored(value, rounded(tensor.numpy(), dtype))
        producer = value.producer()
        source: ir.Value | None = value
        if is_operator(producer, "Cast") and value not in self._extents:
            source = producer.inputs[0]  # type: ignore[union-attr]
        assert source is not None
        if source in self._floats and source is not value:
            return self._as(source, dtype)
        if source.dtype == dtype:
            return source
        cast = ir.Node("", "Cast", [source], [ir.AttrInt64("to", int(dtype))])
        return self._placed(cast, value, dtype)

    def _stored(self, value: ir.Value, array: np.ndarray) -> ir.Value:
        """Store an array as an initializer or as a Constant node, whichever `value` is."""
        dtype = ir.DataType.from_numpy(array.dtype)
        if value.producer() is not None:
            node = ir.Node("", "Constant", [], [ir.AttrTensor("value", ir.tensor(array))])
            return self._placed(node, value, dtype)
        name = self._free(value, dtype)
        made = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        made.shape, made.type = ir.Shape(array.shape), ir.TensorType(dtype)
        assert value.graph is not None
        value.graph.register_initializer(made)
        return made

    def _placed(self, node: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Insert a node next to the producer of `value`, where every reader can use its output."""
        (made,) = node.outputs
        made.name = self._free(value, dtype)
        made.shape, made.type = value.shape, ir.TensorType(dtype)
        node.name = made.name
        producer, graph = value.producer(), value.graph
        assert graph is not None
        if producer is not None:
            graph.insert_after(producer, node)
        elif len(graph):
            graph.insert_before(graph[0], node)
        else:
            graph.append(node)
        return made

    def _free(self, value: ir.Value, dtype: ir.DataType | None) -> str:
        name = stem = f"{value.name}.{'other' if dtype is None else dtype.numpy().name}"
        number = 0
        while name in self._names:
            number += 1
            name = f"{stem}.{number}"
        self._names.add(name)
        return name

    def _named(self, value: ir.Value, instead: ir.Value) -> ir.Value:
        """Return the value that replaces an output of the graph, renamed to the output's name."""
        name = str(value.name)
        if instead is not value and instead.name != name:
            _rename(value, self._free(value, value.dtype))
            _rename(instead, name)
        return instead

    def _settle_constants(self) -> None:
        """Give an initializer's name to its converted version if only that is read."""
        for (value, _), made in self._versions.items():
            graph, name = value.graph, str(value.name)
            if (
                graph is not None
                and value.is_initializer()
                and not value.uses()
                and not value.is_graph_output()
                and made.is_initializer()
                and str(made.name).startswith(name)
            ):
                del graph.initializers[name]
                _rename(made, name)


def rounded(array: np.ndarray, dtype: ir.DataType) -> np.ndarray:
    """Return the nearest finite values of `dtype`; NaN and infinity are kept."""
    into = dtype.numpy()
    if into.itemsize >= array.dtype.itemsize:
        return array.astype(into)
    most = array.dtype.type(ml_dtypes.finfo(into).max)
    return np.where(np.isinf(array), array, np.clip(array, -most, most)).astype(into)


def _rename(value: ir.Value, name: str) -> None:
    """Rename a value, and its entry in the graph's table if it is an initializer."""
    graph = value.graph if value.is_initializer() else None
    if graph is not None:
        del graph.initializers[str(value.name)]
    value.name = name
    if graph is not None:
        graph.register_initializer(value)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """Yield every value of the graph and of its subgraphs."""
    for graph in model.graphs():
        yield from graph.inputs
        yield from graph.initializers.values()
        for node in graph:
            yield from node.outputs


def _dtype(value: ir.Value) -> ir.DataType | None:
    """Return the dtype of a tensor, None for an unknown type and for a sequence."""
    return value.dtype if isinstance(value.type, ir.TensorType) else None


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the subgraphs of a node: the branches of an If, the body of a Loop or Scan."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _is_compound(value: ir.Value | None) -> bool:
    """Return whether a value is a sequence or an optional, which Cast does not take."""
    return value is not None and isinstance(value.type, (ir.SequenceType, ir.OptionalType))


def _ties(node: ir.Node, attribute: ir.Attr) -> bool:
    """Return whether an attribute holds float32 values whose dtype may have to equal an input's."""
    if is_operator(node, "ConstantOfShape"):
        return False
    if attribute.type == ir.AttributeType.TENSOR:
        return attribute.as_tensor().dtype == FLOAT
    return attribute.type == ir.AttributeType.FLOATS and node.domain != DOMAIN

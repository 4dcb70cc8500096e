"""Pass that fixes the batch of a graph."""

from __future__ import annotations

from typing import ClassVar, final

import onnx_ir as ir

from exporters.passes.base import NumberedPass
from exporters.passes.extents import fold_extents
from toolkit.core.options import Option
from toolkit.core.specs import Dim, Signature, TensorSpec


@final
class StaticBatch(NumberedPass):
    """Pass that replaces the batch axis by a number and folds the shape arithmetic.

    The batch axis is that of the signature. If it has a name, the number replaces that name
    everywhere; otherwise it is set on axis 0 of every input where that has no name. The other
    shapes are inferred again. No weight is folded into another.
    """

    least_opset: ClassVar[int] = 13  # folding writes operators as they are from this opset on
    option: ClassVar[Option] = Option(default=1, least=1, help="The batch that the graph takes.")

    def requires(self, model: ir.Model) -> None:
        axis = _signature(model).batch_axis
        if not any(value.shape for value in model.graph.inputs):
            raise ir.passes.PreconditionError("none of its inputs has an axis.")
        if isinstance(axis, int) and axis != self.number:
            raise ir.passes.PreconditionError(f"its batch is {axis} already.")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        axis = _signature(model).batch_axis
        if isinstance(axis, int):
            return ir.passes.PassResult(model, modified=False)
        for value in model.graph.inputs:
            if axis is None and value.shape and _extent(value.shape[0]) is None:
                value.shape = ir.Shape([self.number, *value.shape[1:]])
        if axis is not None:
            for value in _values(model):
                value.shape = _fixed(value.shape, axis, self.number)
        fold_extents(model)
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        if _signature(model).batch_axis != self.number:
            raise ir.passes.PostconditionError(f"its batch is not {self.number}.")


def _signature(model: ir.Model) -> Signature:
    """Return a signature with the graph's inputs only."""
    inputs = (
        TensorSpec(
            name=str(value.name),
            dtype=str(value.dtype).lower(),
            shape=tuple(map(_extent, value.shape or ())),
        )
        for value in model.graph.inputs
    )
    return Signature(inputs=tuple(inputs), outputs=())


def _extent(axis: int | ir.SymbolicDim) -> Dim:
    return axis if isinstance(axis, int) else axis.value


def _fixed(shape: ir.Shape | None, axis: str, number: int) -> ir.Shape | None:
    """Return a shape in which `number` replaces the axis, also in products and sums."""
    if shape is None:
        return None
    extents: list[int | ir.SymbolicDim] = []
    for extent in shape:
        if isinstance(extent, int):
            extents.append(extent)
        elif extent.value == axis:
            extents.append(number)
        else:
            extents.append(_evaluated(extent, axis, number))
    return ir.Shape(extents)


def _evaluated(extent: ir.SymbolicDim, name: str, number: int) -> int | ir.SymbolicDim:
    try:
        return extent.evaluate({name: number}) if name in extent.free_symbols() else extent
    except ValueError:  # the name is not an expression
        return extent


def _values(model: ir.Model) -> list[ir.Value]:
    """Return the values with shapes that may name the batch, including those of subgraphs."""
    values: list[ir.Value] = []
    for graph in model.graphs():
        values.extend(graph.inputs)
        values.extend(value for node in graph for value in node.outputs)
    return values

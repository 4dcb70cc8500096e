"""A graph of float32 in another floating-point dtype."""

from __future__ import annotations

from typing import ClassVar, final

import onnx_ir as ir
from onnx_ir.passes.common import (
    CheckerPass,
    InlinePass,
    RemoveInitializersFromInputsPass,
    RemoveUnusedNodesPass,
)
from onnxscript import version_converter

from exporters.onnx_schemas import schema_of
from exporters.passes.constants import DOMAIN
from exporters.passes.inference import infer
from exporters.passes.retyping import FLOAT, Retyping
from exporters.passes.schemas import type_string

# From this version on an initializer need not be an input.
FREE_INITIALIZERS = 4
# The operators that mean something else from one of the versions between on.
CHANGED_BETWEEN_18_AND_22 = frozenset({"DFT", "GridSample", "GroupNormalization"})


class _Precision(ir.passes.InPlacePass):
    """Every float32 value becomes one of `target`, where the operators' schemas allow it.

    What stays float32, with a Cast on each way in and out:
    - an input or output of a fixed type, such as Resize's scales, and one whose type may not be
      `target` at the model's opset: such an operator computes in float32;
    - an operator that ONNX does not define, one on sequences, and one with a tensor or, outside
      of ONNX's own domain, a list of numbers among its attributes, which may fix its types;
    - what is computed of extents alone, which must come out as whole numbers;
    - the graph's inputs and outputs, unless `borders` is True.

    A value is converted once, next to where it is made, in whichever graph that is. Constants are
    stored in the dtype in which they are read. In `target`, they are the nearest finite value: one
    that is too large becomes the largest, of its sign, and one that is too small a subnormal or
    zero, of its sign; NaN and infinity stay. Functions are inlined first.
    """

    target: ClassVar[ir.DataType]
    borders: ClassVar[bool] = False
    wide_from: ClassVar[int | None] = None  # the opset that admits `target` in most operators

    @final
    def requires(self, model: ir.Model) -> None:
        cast = schema_of("Cast", DOMAIN, model.graph.opset_imports)
        if cast is None or type_string(self.target) not in cast.outputs[0].types:
            raise ir.passes.PreconditionError(
                f"opset {model.graph.opset_imports.get(DOMAIN)} has no {_name(self.target)}."
            )

    @final
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        InlinePass()(model)
        RemoveInitializersFromInputsPass()(model)
        model.ir_version = max(model.ir_version, FREE_INITIALIZERS)
        _upgrade(model, self.wide_from)
        infer(model)
        retyped = Retyping(model, self.target).run(borders=self.borders)
        RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=retyped)

    @final
    def ensures(self, model: ir.Model) -> None:
        if error := _invalid(model):
            raise ir.passes.PostconditionError(f"as {_name(self.target)} it is invalid: {error}")
        border = [*model.graph.inputs, *model.graph.outputs]
        if self.borders and any(value.dtype == FLOAT for value in border):
            raise ir.passes.PostconditionError("an input or output is still float32.")


@final
class Float16(_Precision):
    """float32 becomes float16, of five bits of exponent: 65504 is the largest."""

    target: ClassVar[ir.DataType] = ir.DataType.FLOAT16


@final
class BFloat16(_Precision):
    """float32 becomes bfloat16. A graph of opset 18 to 21 becomes one of 22, from which on Conv and
    others admit it, where all of its operators mean the same there; in one of an older opset they
    stay float32."""

    target: ClassVar[ir.DataType] = ir.DataType.BFLOAT16
    wide_from: ClassVar[int | None] = 22


@final
class Float64(_Precision):
    """float32 becomes float64, that of inputs and outputs too: to measure rounding against.

    A constant keeps its value, which was rounded to float32 before. LayerNormalization and its kind
    round to their `stash_type` on the way, as ONNX defines them.
    """

    target: ClassVar[ir.DataType] = ir.DataType.DOUBLE
    borders: ClassVar[bool] = True


def _upgrade(model: ir.Model, opset: int | None) -> None:
    """Raises the opset where that changes nothing but the types that operators admit.

    Not by rewriting them: onnxscript's adapters skip with a warning what they cannot rewrite.
    """
    now = model.graph.opset_imports.get(DOMAIN, 0)
    kinds = {node.op_type for node in model.graph.all_nodes() if node.domain == DOMAIN}
    if opset is not None and 18 <= now < opset and not kinds & CHANGED_BETWEEN_18_AND_22:
        version_converter.convert_version(model, opset)


def _invalid(model: ir.Model) -> str | None:
    """What onnx's checker, with strict inference of types, has against a graph."""
    try:
        CheckerPass(full_check=True)(model)
    except Exception as error:  # of several kinds, with no base but Exception
        return str(error).strip().partition("\n")[0]
    return None


def _name(dtype: ir.DataType) -> str:
    return dtype.numpy().name

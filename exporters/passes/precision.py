"""Passes that convert a float32 graph to another floating-point dtype."""

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

from exporters.onnx.schemas import schema_of
from exporters.passes.constants import DOMAIN
from exporters.passes.inference import infer
from exporters.passes.retyping import FLOAT, Retyping
from exporters.passes.schemas import type_string

# From this IR version on, an initializer need not be an input.
FREE_INITIALIZERS = 4
# Operators whose definition changed in one of the opsets 19 to 22.
CHANGED_BETWEEN_18_AND_22 = frozenset({"DFT", "GridSample", "GroupNormalization"})


class _Precision(ir.passes.InPlacePass):
    """Pass that converts float32 values to `target` where the schemas of the operators allow it.

    These stay float32, with a Cast on each way in and out:
    - an input or output of a fixed type, such as Resize's scales, and one that may not be `target`
      at the model's opset: such an operator computes in float32;
    - an operator that ONNX does not define, a BitCast, an operator on sequences, and one whose
      attributes contain a float32 tensor or, outside of ONNX's own domain, a list of floats, which
      may fix its types;
    - shape arithmetic, whose results must be exact integers;
    - the graph's inputs and outputs, unless `borders` is True.

    A value is converted once, next to the node that computes it, in whichever graph that is.
    Constants are stored in the dtype in which they are read. In `target`, they are the nearest
    finite value: values that are too large become the largest of their sign, and values that are
    too small a subnormal or zero of their sign; NaN and infinity stay. Functions are inlined first.
    """

    target: ClassVar[ir.DataType]
    borders: ClassVar[bool] = False
    wide_from: ClassVar[int | None] = None  # the opset from which most operators admit `target`

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
    """Pass that converts float32 to float16, which has 5 exponent bits and the maximum 65504."""

    target: ClassVar[ir.DataType] = ir.DataType.FLOAT16


@final
class BFloat16(_Precision):
    """Pass that converts float32 to bfloat16.

    A graph of opset 18 to 21 is raised to 22, from which Conv and others admit bfloat16, if all of
    its operators have the same definition there. In a graph of an older opset, those operators stay
    float32.
    """

    target: ClassVar[ir.DataType] = ir.DataType.BFLOAT16
    wide_from: ClassVar[int | None] = 22


@final
class Float64(_Precision):
    """Pass that converts float32 to float64, including the graph's inputs and outputs.

    The result serves to measure rounding errors. A constant keeps its value, which was rounded to
    float32 before. LayerNormalization and similar operators round to their `stash_type` internally,
    as ONNX defines them.
    """

    target: ClassVar[ir.DataType] = ir.DataType.DOUBLE
    borders: ClassVar[bool] = True


def _upgrade(model: ir.Model, opset: int | None) -> None:
    """Raise the opset if that changes nothing but the types that operators admit.

    No operator is rewritten: onnxscript's adapters skip what they cannot rewrite, with a warning.
    """
    now = model.graph.opset_imports.get(DOMAIN, 0)
    kinds = {node.op_type for node in model.graph.all_nodes() if node.domain == DOMAIN}
    if opset is not None and 18 <= now < opset and not kinds & CHANGED_BETWEEN_18_AND_22:
        version_converter.convert_version(model, opset)


def _invalid(model: ir.Model) -> str | None:
    """Return the error of onnx's checker with strict type inference, or None for a valid graph."""
    try:
        CheckerPass(full_check=True)(model)
    except Exception as error:  # the errors have no common base class
        return str(error).strip().partition("\n")[0]
    return None


def _name(dtype: ir.DataType) -> str:
    return dtype.numpy().name

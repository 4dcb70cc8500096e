"""Pass that runs onnxscript's optimizer on a graph."""

from __future__ import annotations

from typing import ClassVar, final

import onnx_ir as ir
import onnxscript.optimizer

from exporters.passes.constants import require_open_bodies


@final
class Simplify(ir.passes.InPlacePass):
    """Pass that folds constants, removes nodes without effect and fuses known operator sequences.

    Its rules write operators as they are from opset 13 on, where axes are inputs.
    """

    least_opset: ClassVar[int] = 13

    def requires(self, model: ir.Model) -> None:
        require_open_bodies(model)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        before = sum(1 for _ in model.graph.all_nodes())
        onnxscript.optimizer.optimize_ir(model)
        after = sum(1 for _ in model.graph.all_nodes())
        return ir.passes.PassResult(model, modified=before != after)

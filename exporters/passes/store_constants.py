"""Pass that turns constants into initializers."""

from __future__ import annotations

from typing import ClassVar, final

import onnx_ir as ir
import onnxscript.optimizer
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass

from exporters.passes.constants import DOMAIN, REARRANGING, require_open_bodies

MOST_BYTES = 1 << 31  # largest tensor that is rearranged


@final
class StoreConstants(ir.passes.InPlacePass):
    """Pass that turns Constant nodes and rearranged initializers into initializers.

    Copies, transposes and reshapes of a stored tensor are computed, so that tools that look for
    weights find them. Every bit is kept.
    """

    least_opset: ClassVar[int] = 13

    def requires(self, model: ir.Model) -> None:
        require_open_bodies(model)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        before = sum(1 for _ in model.graph.all_nodes())
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        onnxscript.optimizer.fold_constants(
            model,
            should_fold=lambda node: (
                None if node.domain == DOMAIN and node.op_type in REARRANGING else False
            ),
            input_size_limit=MOST_BYTES,
            output_size_limit=MOST_BYTES,
        )
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        RemoveUnusedNodesPass()(model)
        after = sum(1 for _ in model.graph.all_nodes())
        return ir.passes.PassResult(model, modified=before != after)

"""Rewrites of an ONNX graph that leave what it computes: each a pass of onnx_ir, by name.

A pass says with `requires` what it cannot work without, and with `ensures` what holds afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.core.registry import Entry, Registry

if TYPE_CHECKING:
    from onnx_ir.passes import InPlacePass

PASSES: Registry[InPlacePass] = Registry(
    "pass",
    {
        "fold-batch-norm": Entry("exporters.passes.fold_batch_norm:FoldBatchNorm"),
        "fold-time-channel": Entry("exporters.passes.fold_time_channel:FoldTimeChannel"),
        "simplify": Entry("exporters.passes.simplify:Simplify"),
    },
    group="toolkit.passes",
)

"""Rewrites of an ONNX graph that leave what it computes: each a pass of onnx_ir, by name.

A pass says with `requires` what it cannot work without, and with `ensures` what holds afterwards.
One that takes a number says so (see exporters/passes/base.py), and is given it as `name=number`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.core.registry import Entry, Registry

if TYPE_CHECKING:
    from onnx_ir.passes import InPlacePass

PASSES: Registry[InPlacePass] = Registry(
    "pass",
    {
        "bfloat16": Entry("exporters.passes.precision:BFloat16"),
        "float16": Entry("exporters.passes.precision:Float16"),
        "fold-batch-norm": Entry("exporters.passes.fold_batch_norm:FoldBatchNorm"),
        "fold-time-channel": Entry("exporters.passes.fold_time_channel:FoldTimeChannel"),
        "simplify": Entry("exporters.passes.simplify:Simplify"),
        "static-batch": Entry("exporters.passes.static_batch:StaticBatch"),
        "store-constants": Entry("exporters.passes.store_constants:StoreConstants"),
    },
    group="toolkit.passes",
)

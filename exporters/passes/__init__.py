"""Passes of onnx_ir, by name, that rewrite an ONNX graph and keep what it computes, up to rounding.

A pass checks its preconditions in `requires` and its results in `ensures`. A pass that takes a
number (see exporters/passes/base.py) is given as `name=number`.
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

"""Runtimes by name, a file each."""

from __future__ import annotations

from toolkit.core.registry import Entry, Registry
from toolkit.core.session import Runtime

RUNTIMES: Registry[Runtime] = Registry(
    "runtime",
    {
        "null": Entry("runtimes.null:Null"),
        "torch": Entry("runtimes.torch_eager:TorchEager"),
        "torch-compile": Entry("runtimes.torch_compile:TorchCompile"),
        "torch-export": Entry("runtimes.torch_export:TorchExport"),
        "onnxruntime": Entry("runtimes.onnxruntime:OnnxRuntime", extra="cpu"),
        "openvino": Entry("runtimes.openvino:OpenVino", extra="cpu"),
    },
    group="toolkit.runtimes",
)

"""Runtimes by name, a file each."""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.core.artifact import Format
from toolkit.core.registry import Entry, Registry
from toolkit.core.session import Runtime

RUNTIMES: Registry[Runtime] = Registry(
    "runtime",
    {
        "null": Entry("runtimes.null:Null"),
        "torch": Entry("runtimes.torch_eager:TorchEager"),
        "torch-compile": Entry("runtimes.torch_compile:TorchCompile"),
        "torch-export": Entry("runtimes.torch_export:TorchExport"),
        "aotinductor": Entry("runtimes.aotinductor:AotInductor"),
        "onnxruntime": Entry("runtimes.onnxruntime:OnnxRuntime", extra="cpu"),
        "onnx-reference": Entry("runtimes.onnx_reference:OnnxReference"),
        "openvino": Entry("runtimes.openvino:OpenVino", extra="cpu"),
        "tensorflow": Entry("runtimes.tensorflow:TensorFlow", extra="tensorflow"),
        "tensorflow-xla": Entry("runtimes.tensorflow_xla:TensorFlowXla", extra="tensorflow"),
        "litert": Entry("runtimes.litert:LiteRt", extra="litert"),
    },
    group="toolkit.runtimes",
)

ON_REQUEST = frozenset({"null", "onnx-reference"})
"""What nobody deploys: these are measured only where they are named."""

ACCEPTS: Mapping[str, frozenset[Format]] = {
    "torch": frozenset({Format.CHECKPOINT}),
    "torch-compile": frozenset({Format.CHECKPOINT}),
    "torch-export": frozenset({Format.TORCH_EXPORT}),
    "aotinductor": frozenset({Format.AOTINDUCTOR}),
    "onnxruntime": frozenset({Format.ONNX}),
    "onnx-reference": frozenset({Format.ONNX}),
    "openvino": frozenset({Format.ONNX, Format.OPENVINO}),
    "tensorflow": frozenset({Format.SAVEDMODEL, Format.KERAS}),
    "tensorflow-xla": frozenset({Format.SAVEDMODEL, Format.KERAS}),
    "litert": frozenset({Format.LITERT}),
}
"""What our own runtimes open, so that none has to be imported to know that it opens nothing of what
there is. They say the same themselves (tested); one of a third party is asked."""

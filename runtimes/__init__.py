"""Registry of the runtimes by name; each runtime is in a file of its own."""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.core.artifact import Format
from toolkit.core.nvidia import INDEX, TRIPY_INDEX
from toolkit.core.registry import Entry, Registry
from toolkit.core.session import Runtime

RUNTIMES: Registry[Runtime] = Registry(
    "runtime",
    {
        "null": Entry("runtimes.null:Null"),
        "torch": Entry("runtimes.torch.eager:TorchEager"),
        "torch-compile": Entry("runtimes.torch.compile:TorchCompile"),
        "torch-export": Entry("runtimes.torch.exported:TorchExport"),
        "aotinductor": Entry("runtimes.torch.aotinductor:AotInductor"),
        "onnxruntime": Entry("runtimes.onnxruntime.cpu:OnnxRuntime", extra="cpu"),
        "onnx-reference": Entry("runtimes.onnx_reference:OnnxReference"),
        "openvino": Entry("runtimes.openvino:OpenVino", extra="cpu"),
        "tensorflow": Entry("runtimes.tensorflow.saved_model:TensorFlow", extra="tensorflow"),
        "tensorflow-xla": Entry("runtimes.tensorflow.xla:TensorFlowXla", extra="tensorflow"),
        "litert": Entry("runtimes.litert:LiteRt", extra="litert"),
        "torch-cuda": Entry("runtimes.torch.cuda:TorchCuda"),
        "torch-compile-cuda": Entry("runtimes.torch.compile_cuda:TorchCompileCuda"),
        "onnxruntime-cuda": Entry("runtimes.onnxruntime.gpu:OnnxRuntimeCuda", extra="gpu"),
        "onnxruntime-tensorrt": Entry("runtimes.onnxruntime.gpu:OnnxRuntimeTensorRt", extra="gpu"),
        "onnxruntime-nv-tensorrt-rtx": Entry(
            "runtimes.onnxruntime.gpu:OnnxRuntimeNvTensorRtRtx", extra="rtx-plugin"
        ),
        "tensorrt": Entry("runtimes.tensorrt.standard:TensorRt", extra="gpu", options=INDEX),
        "tensorrt-rtx": Entry("runtimes.tensorrt.rtx:TensorRtRtx", extra="rtx"),
        "tripy": Entry("runtimes.tripy:Tripy", extra="tripy", options=TRIPY_INDEX),
    },
    group="toolkit.runtimes",
)

ON_REQUEST = frozenset({"null", "onnx-reference"})
"""Runtimes that nobody deploys, which are measured only if named."""

PROVIDERS: Mapping[str, str] = {
    "cpu": "onnxruntime",
    "cuda": "onnxruntime-cuda",
    "tensorrt": "onnxruntime-tensorrt",
    "nv-tensorrt-rtx": "onnxruntime-nv-tensorrt-rtx",
}
"""Runtimes of ONNX Runtime's execution providers, by the provider's name on the command line.

Each provider is a runtime of its own, so that one run can compare them, and each has its own probe.
"""

ON_CUDA: Mapping[str, str] = {
    "torch": "torch-cuda",
    "torch-compile": "torch-compile-cuda",
    "onnxruntime": "onnxruntime-cuda",
}
"""GPU counterparts of runtimes for the CPU."""

FOR_CUDA = frozenset(
    {*ON_CUDA.values(), *PROVIDERS.values(), "tensorrt", "tensorrt-rtx", "tripy"}
) - {"onnxruntime"}
"""Runtimes that run on a GPU. A test compares them with `Runtime.device`."""

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
    "torch-cuda": frozenset({Format.CHECKPOINT}),
    "torch-compile-cuda": frozenset({Format.CHECKPOINT}),
    "onnxruntime-cuda": frozenset({Format.ONNX}),
    "onnxruntime-tensorrt": frozenset({Format.ONNX}),
    "onnxruntime-nv-tensorrt-rtx": frozenset({Format.ONNX}),
    "tensorrt": frozenset({Format.TENSORRT}),
    "tensorrt-rtx": frozenset({Format.TENSORRT_RTX}),
    "tripy": frozenset({Format.TRIPY}),
}
"""Formats that each built-in runtime but null opens, known without importing the runtime.

A test compares them with `Runtime.accepts`. Third-party runtimes have to be imported and asked.
"""

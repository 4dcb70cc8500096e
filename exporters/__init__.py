"""Exporters by target, tensor readers by format, and the proof that an export holds the model."""

from __future__ import annotations

from collections.abc import Mapping

from exporters.base import Exporter, InnerTensorWriter, Route, TensorReader
from toolkit.core.artifact import Format
from toolkit.core.nvidia import INDEX, TRIPY_INDEX
from toolkit.core.registry import Entry, Registry

EXPORTERS: Registry[Exporter] = Registry(
    "export target",
    {
        "onnx": Entry("exporters.onnx.from_torch:OnnxFromTorch"),
        "torch-export": Entry("exporters.torch_program:TorchProgram"),
        "aotinductor": Entry("exporters.torch_aotinductor:TorchAotInductor", extra="cpu"),
        "openvino": Entry("exporters.openvino_ir:OpenVinoIr", extra="cpu"),
        "savedmodel": Entry("exporters.saved_model:SavedModel", extra="tensorflow"),
        "onnx-from-tensorflow": Entry(
            "exporters.onnx.from_tensorflow:OnnxFromTensorFlow", extra="tensorflow"
        ),
        "litert": Entry("exporters.litert:LiteRt", extra="litert"),
        "tensorrt": Entry("exporters.tensorrt.standard:TensorRt", extra="gpu", options=INDEX),
        "tensorrt-rtx": Entry("exporters.tensorrt.rtx:TensorRtRtx", extra="rtx"),
        "tripy": Entry("exporters.tripy_module:TripyModule", extra="tripy", options=TRIPY_INDEX),
    },
    group="toolkit.exporters",
)

ROUTES: Mapping[str, Route] = {
    "onnx": Route(
        takes=frozenset({Format.CHECKPOINT, Format.TORCH_EXPORT}),
        format=Format.ONNX,
        framework="torch",
        checked_with="onnxruntime",
        options=frozenset({"opset"}),
    ),
    "torch-export": Route(
        takes=frozenset({Format.CHECKPOINT}),
        format=Format.TORCH_EXPORT,
        framework="torch",
        checked_with="torch-export",
    ),
    "aotinductor": Route(
        takes=frozenset({Format.CHECKPOINT, Format.TORCH_EXPORT}),
        format=Format.AOTINDUCTOR,
        framework="torch",
        checked_with="aotinductor",
    ),
    "openvino": Route(
        takes=frozenset({Format.ONNX}), format=Format.OPENVINO, checked_with="openvino"
    ),
    "savedmodel": Route(
        takes=frozenset({Format.CHECKPOINT, Format.KERAS}),
        format=Format.SAVEDMODEL,
        framework="tensorflow",
        checked_with="tensorflow",
        options=frozenset({"layout"}),
    ),
    "onnx-from-tensorflow": Route(
        takes=frozenset({Format.SAVEDMODEL}),
        format=Format.ONNX,
        checked_with="onnxruntime",
        options=frozenset({"opset"}),
    ),
    "litert": Route(
        takes=frozenset({Format.SAVEDMODEL}),
        format=Format.LITERT,
        checked_with="litert",
    ),
    "tensorrt": Route(
        takes=frozenset({Format.ONNX}),
        format=Format.TENSORRT,
        checked_with="tensorrt",
        options=frozenset({"batches", "profiles"}),
    ),
    "tensorrt-rtx": Route(
        takes=frozenset({Format.ONNX}),
        format=Format.TENSORRT_RTX,
        checked_with="tensorrt-rtx",
        options=frozenset({"compute_capabilities", "batches", "profiles"}),
    ),
    "tripy": Route(
        takes=frozenset({Format.CHECKPOINT}),
        format=Format.TRIPY,
        framework="tripy",
        checked_with="tripy",
        options=frozenset({"batches"}),
    ),
}
"""Routes of the built-in exporters, so that a path between formats is found without imports."""

READERS: Registry[TensorReader] = Registry(
    "format",
    {
        "checkpoint": Entry("exporters.checkpoint_file:CheckpointTensors"),
        "onnx": Entry("exporters.onnx.reader:OnnxTensors"),
        "torch-export": Entry("exporters.torch_program:TorchProgramTensors"),
        "aotinductor": Entry("exporters.torch_aotinductor:AotInductorTensors", extra="cpu"),
        "openvino": Entry("exporters.openvino_ir:OpenVinoTensors", extra="cpu"),
        "savedmodel": Entry("exporters.saved_model:SavedModelTensors", extra="tensorflow"),
        "keras": Entry("exporters.saved_model:KerasTensors", extra="tensorflow"),
        "litert": Entry("exporters.litert:LiteRtTensors", extra="litert"),
        "tensorrt": Entry(
            "exporters.tensorrt.standard:TensorRtTensors", extra="gpu", options=INDEX
        ),
        "tensorrt-rtx": Entry("exporters.tensorrt.rtx:TensorRtRtxTensors", extra="rtx"),
        "tripy": Entry("exporters.tripy_file:TripyTensors"),
    },
    group="toolkit.readers",
)

EXPOSERS: Registry[InnerTensorWriter] = Registry(
    "format whose inner tensors can be had",
    {
        "checkpoint": Entry("exporters.activations.torch:TorchExposer"),
        "torch-export": Entry("exporters.activations.torch:TorchExposer"),
        "onnx": Entry("exporters.activations.onnx:OnnxExposer"),
        "openvino": Entry("exporters.activations.openvino:OpenVinoExposer", extra="cpu"),
    },
)

SUFFIXES: Mapping[str, Format] = {
    ".onnx": Format.ONNX,
    ".pt2": Format.TORCH_EXPORT,
    ".xml": Format.OPENVINO,
    ".keras": Format.KERAS,
    ".tflite": Format.LITERT,
    ".engine": Format.TENSORRT_RTX,
}
"""Formats of model files that the toolkit did not write, by file name suffix."""

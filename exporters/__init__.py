"""Exporters by target, readers by format, and the proof that what was written is the model."""

from __future__ import annotations

from exporters.base import Exporter, TensorReader
from toolkit.core.registry import Entry, Registry

EXPORTERS: Registry[Exporter] = Registry(
    "export target",
    {
        "onnx": Entry("exporters.onnx_from_torch:OnnxFromTorch"),
        "torch-export": Entry("exporters.torch_program:TorchProgram"),
        "openvino": Entry("exporters.openvino_ir:OpenVinoIr", extra="cpu"),
    },
    group="toolkit.exporters",
)

READERS: Registry[TensorReader] = Registry(
    "format",
    {
        "checkpoint": Entry("exporters.checkpoint_file:CheckpointTensors"),
        "onnx": Entry("exporters.onnx_file:OnnxTensors"),
        "torch-export": Entry("exporters.torch_program:TorchProgramTensors"),
        "openvino": Entry("exporters.openvino_ir:OpenVinoTensors", extra="cpu"),
    },
    group="toolkit.readers",
)

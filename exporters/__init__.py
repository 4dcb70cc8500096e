"""Exporters by target, readers by format, and the proof that what was written is the model."""

from __future__ import annotations

from collections.abc import Mapping

from exporters.base import Exporter, TensorReader
from toolkit.core.artifact import Format
from toolkit.core.registry import Entry, Registry

EXPORTERS: Registry[Exporter] = Registry(
    "export target",
    {
        "onnx": Entry("exporters.onnx_from_torch:OnnxFromTorch"),
        "torch-export": Entry("exporters.torch_program:TorchProgram"),
        "aotinductor": Entry("exporters.torch_aotinductor:TorchAotInductor", extra="cpu"),
        "openvino": Entry("exporters.openvino_ir:OpenVinoIr", extra="cpu"),
    },
    group="toolkit.exporters",
)

ROUTES: Mapping[str, tuple[frozenset[Format], Format]] = {
    "onnx": (frozenset({Format.CHECKPOINT, Format.TORCH_EXPORT}), Format.ONNX),
    "torch-export": (frozenset({Format.CHECKPOINT}), Format.TORCH_EXPORT),
    "aotinductor": (frozenset({Format.CHECKPOINT, Format.TORCH_EXPORT}), Format.AOTINDUCTOR),
    "openvino": (frozenset({Format.ONNX}), Format.OPENVINO),
}
"""What our own exporters take and write, so that none has to be imported to find a way from one
format to another. They say the same themselves (tested); one of a third party is asked."""

READERS: Registry[TensorReader] = Registry(
    "format",
    {
        "checkpoint": Entry("exporters.checkpoint_file:CheckpointTensors"),
        "onnx": Entry("exporters.onnx_file:OnnxTensors"),
        "torch-export": Entry("exporters.torch_program:TorchProgramTensors"),
        "aotinductor": Entry("exporters.torch_aotinductor:AotInductorTensors", extra="cpu"),
        "openvino": Entry("exporters.openvino_ir:OpenVinoTensors", extra="cpu"),
    },
    group="toolkit.readers",
)

SUFFIXES: Mapping[str, Format] = {
    ".onnx": Format.ONNX,
    ".pt2": Format.TORCH_EXPORT,
    ".xml": Format.OPENVINO,
}
"""What a file of somebody else's is taken for, by its name."""

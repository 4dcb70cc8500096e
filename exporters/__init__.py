"""Exporters by target, and the proof that what they wrote is the model."""

from __future__ import annotations

from exporters.base import Exporter
from toolkit.core.registry import Entry, Registry

EXPORTERS: Registry[Exporter] = Registry(
    "export target",
    {"onnx": Entry("exporters.onnx_from_torch:OnnxFromTorch")},
    group="toolkit.exporters",
)

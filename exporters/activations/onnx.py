"""Exposer of the inner tensors of an ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

import onnx_ir as ir

from exporters.base import InnerTensorWriter
from exporters.onnx.saving import save_graph
from exporters.passes.inference import infer
from toolkit.core.artifact import Artifact


@final
class OnnxExposer(InnerTensorWriter):
    """Exposer of the tensors of the main graph.

    Tensors in the bodies of loops and branches are left out, because they have no single value.
    """

    def expose(self, source: Artifact, directory: Path) -> tuple[Path, Mapping[str, str]]:
        model = ir.load(source.path)
        infer(model)
        graph = model.graph
        inner = [
            value
            for node in graph
            if node.op_type != "Constant"
            for value in node.outputs
            if value.dtype is not None
            and value.dtype.is_floating_point()
            and value.shape is not None
            and value not in graph.outputs
        ]
        graph.outputs.extend(inner)
        path = directory / "model.onnx"
        save_graph(model, path)
        return path, {
            value.name or "": f"{node.op_type} {node.name}".strip()
            for node in graph
            for value in node.outputs
        }

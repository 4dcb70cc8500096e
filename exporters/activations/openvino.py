"""Exposer of the inner tensors of an OpenVINO graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import openvino as ov

from exporters.base import InnerTensorWriter
from exporters.openvino_ir import HELD, read_ir
from toolkit.core.artifact import Artifact


@final
class OpenVinoExposer(InnerTensorWriter):
    """Exposer of the tensors of an OpenVINO graph.

    A tensor keeps its name in the graph, as in one read from ONNX. Without a name, it gets that of
    its operation.
    """

    def expose(self, source: Artifact, directory: Path) -> tuple[Path, Mapping[str, str]]:
        model = read_ir(source.path)
        given = {_place(result.input_value(0)) for result in model.get_results()}
        operators: dict[str, str] = {}
        inner = []
        for operation in model.get_ordered_ops():
            if operation.get_type_name() in HELD:
                continue
            for port in operation.outputs():
                name = min(port.get_names(), default=operation.get_friendly_name())
                operators[name] = f"{operation.get_type_name()} {operation.get_friendly_name()}"
                ranked = not port.get_partial_shape().rank.is_dynamic
                if ranked and port.get_element_type().is_real() and _place(port) not in given:
                    port.get_tensor().set_names({name})
                    inner.append(port)
        model.add_outputs(inner)
        path = directory / "model.xml"
        ov.save_model(model, path, compress_to_fp16=False)
        return path, operators


def _place(port: Any) -> tuple[str, int]:
    return port.get_node().get_name(), port.get_index()

"""torch -> ONNX through torch.export (the dynamo exporter)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, final

import onnx_ir as ir
import onnxscript.optimizer
import torch

from exporters.base import Exported, Exporter, ExportOptions
from exporters.onnx_file import read_precision
from models.torch.example import dynamic_shapes, example, explained
from models.torch.program import module_of
from toolkit.core.artifact import Artifact, Format


@final
class OnnxFromTorch(Exporter):
    """Named axes stay dynamic, and every weight keeps its bits.

    The exporter's own optimisation folds weights into each other (batch norm into convolutions),
    so it is off, and only constants that are no weights are folded.
    """

    format: ClassVar[Format] = Format.ONNX
    takes: ClassVar[frozenset[Format]] = frozenset({Format.CHECKPOINT, Format.TORCH_EXPORT})
    framework: ClassVar[str | None] = "torch"
    checked_with: ClassVar[str | None] = "onnxruntime"
    options: ClassVar[frozenset[str]] = frozenset({"opset"})

    def export(self, source: Artifact, directory: Path, options: ExportOptions) -> Exported:
        signature = source.signature
        module = module_of(source)
        with _quiet(), explained(source):
            program = torch.onnx.export(
                module,
                example(source),
                dynamo=True,
                opset_version=options.opset,
                optimize=False,
                verbose=False,
                input_names=[spec.name for spec in signature.inputs],
                output_names=[spec.name for spec in signature.outputs],
                dynamic_shapes=dynamic_shapes(signature, module),
            )
            assert program is not None  # None is what the old exporter gives
            onnxscript.optimizer.fold_constants(program.model)
        _strip_metadata(program.model)
        ir.save(program.model, directory / "model.onnx")
        opset = program.model.opset_imports[""]
        return Exported(
            entry="model.onnx",
            precision=read_precision(directory / "model.onnx"),
            options={"exporter": "torch-dynamo", "opset": opset},
        )


def _strip_metadata(model: ir.Model) -> None:
    """Drops the exporter's notes: they hold source paths, and differ from machine to machine."""
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's remarks on packages that are not installed from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

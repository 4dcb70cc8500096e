"""torch -> ONNX through torch.export (the dynamo exporter)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, final

import onnx_ir as ir
import onnxscript.optimizer
import torch

from exporters.base import Exported, Exporter, StoredTensor
from exporters.onnx_file import read_precision, stored_tensors
from models.torch.base import restored
from toolkit.core.artifact import Checkpoint, Format
from toolkit.core.specs import Signature, TensorSpec

EXAMPLE_BATCH = 2  # torch.export takes an extent of 1 for a constant


@final
class OnnxFromTorch(Exporter):
    """Named axes stay dynamic, and every weight keeps its bits.

    The exporter's own optimisation folds weights into each other (batch norm into convolutions),
    so it is off, and only constants that are no weights are folded.
    """

    format: ClassVar[Format] = Format.ONNX
    frameworks: ClassVar[frozenset[str]] = frozenset({"torch"})

    def export(self, checkpoint: Checkpoint, directory: Path) -> Exported:
        signature = checkpoint.spec.signature
        module = restored(checkpoint.spec, checkpoint.weights())
        with _quiet():
            program = torch.onnx.export(
                module,
                tuple(_example(spec) for spec in signature.inputs),
                dynamo=True,
                optimize=False,
                verbose=False,
                input_names=[spec.name for spec in signature.inputs],
                output_names=[spec.name for spec in signature.outputs],
                dynamic_shapes=_dynamic_shapes(signature),
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

    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        return stored_tensors(path)


def _example(spec: TensorSpec) -> torch.Tensor:
    shape = [dim if isinstance(dim, int) else EXAMPLE_BATCH for dim in spec.shape]
    return torch.zeros(shape, dtype=getattr(torch, spec.dtype))


def _dynamic_shapes(signature: Signature) -> tuple[dict[int, Any], ...]:
    """For each input, its named axes; the same name is the same axis."""
    names = {dim for spec in signature.inputs for dim in spec.shape if isinstance(dim, str)}
    dims = {name: torch.export.Dim(name, min=1) for name in names}
    return tuple(
        {axis: dims[dim] for axis, dim in enumerate(spec.shape) if isinstance(dim, str)}
        for spec in signature.inputs
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

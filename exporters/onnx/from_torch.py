"""torch -> ONNX via torch.export (the dynamo exporter)."""

from __future__ import annotations

import gc
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, final

import onnx
import onnx_ir as ir
import onnxscript.optimizer
import torch
from onnx_ir.passes.common import OutputFixPass, RemoveUnusedNodesPass

from exporters import ROUTES
from exporters.base import Exported, Exporter, ExportOptions, Route
from exporters.onnx.reader import precision_of, read_precision
from exporters.onnx.saving import message_of, save_graph
from exporters.passes.constants import DOMAIN, REARRANGING
from models.torch.example import explained, exported
from toolkit.core.artifact import Artifact
from toolkit.core.specs import Signature

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


@final
class OnnxFromTorch(Exporter):
    """Exporter with dynamic named axes that keeps every weight bit for bit.

    The optimisation of torch's exporter is off, because it folds weights into each other (batch
    norm into convolutions).
    """

    route: ClassVar[Route] = ROUTES["onnx"]

    def export(self, source: Artifact, directory: Path, options: ExportOptions) -> Exported:
        signature = source.signature
        # With gradients, torch would use another kernel for attention with a learned bias than at
        # capture, and the result would have other strides.
        with torch.no_grad(), _quiet(), explained(source.path):
            program = torch.onnx.export(
                exported(source),
                dynamo=True,
                opset_version=options.opset,
                optimize=False,
                verbose=False,
            )
            assert program is not None  # only the old exporter returns None
            _drop_zero_biases(program.model)
            fold_constants(program.model)
        OutputFixPass()(program.model)  # outputs that are inputs, and values that are output twice
        _strip_metadata(program.model)
        _name(program.model, signature)
        path, opset = directory / "model.onnx", program.model.opset_imports[""]
        message = message_of(program.model)
        if message is None:
            save_graph(program.model, path)
        del program
        gc.collect()  # free torch's weights before the file is written
        if message is not None:
            onnx.save(message, path)
        return Exported(
            entry="model.onnx",
            precision=read_precision(path) if message is None else precision_of(message),
            options={"exporter": "torch-dynamo", "opset": opset},
        )


def _drop_zero_biases(model: ir.Model) -> None:
    """Remove the biases of zeros that the exporter computes for convolutions without a bias.

    Runtimes do not need them, and those of 3-D convolutions have two axes in onnxscript 0.7.2.
    """
    for node in model.graph.all_nodes():
        if node.domain == DOMAIN and node.op_type in CONVOLUTIONS and _is_zero(node.inputs[2:]):
            node.resize_inputs(2)
    RemoveUnusedNodesPass()(model)


def _is_zero(values: Sequence[ir.Value | None]) -> bool:
    """Return whether the first value is a constant zero, cast or expanded, and no stored tensor."""
    value = values[0] if values else None
    node = None if value is None else value.producer()
    if value is None or node is None:
        return False
    if node.op_type in ("Expand", "CastLike", "Cast"):
        return _is_zero(node.inputs)
    constant = ir.convenience.get_const_tensor(value)
    return constant is not None and not constant.numpy().any()


def fold_constants(model: ir.Model) -> None:
    """Fold the constants of a graph, except where a result depends on a stored tensor of the model.

    A stored tensor is only rearranged (transposed, reshaped), and only if no other node reads it.
    The graph then holds each tensor once and bit for bit, and runtimes fold the rest when they load
    it. A floating-point tensor of several elements that depends on no stored tensor, such as a
    table of distances, is not folded either: it would look like a weight that the model does not
    have.
    """
    graph = model.graph
    dependent = set(graph.initializers)
    for node in graph.all_nodes():
        if any(value is not None and value.name in dependent for value in node.inputs):
            dependent.update(value.name for value in node.outputs if value.name is not None)

    def should_fold(node: ir.Node) -> bool | None:
        tensors = [v for v in node.inputs if v is not None and v.name in dependent]
        if not tensors:
            return False if any(map(_is_table, node.outputs)) else None
        rearranged = node.domain == DOMAIN and node.op_type in REARRANGING
        return rearranged and all(
            len(tensor.uses()) == 1 and not tensor.is_graph_output() for tensor in tensors
        )

    onnxscript.optimizer.fold_constants(model, should_fold=should_fold)


def _is_table(value: ir.Value) -> bool:
    """Return whether a value is a floating-point tensor of several elements or unknown shape."""
    floating = value.dtype is not None and value.dtype.is_floating_point()
    return floating and (value.shape is None or math.prod(map(_extent, value.shape)) != 1)


def _extent(dim: int | ir.SymbolicDim) -> int:
    """Return the extent, or 2 if it is unknown."""
    return dim if isinstance(dim, int) else 2


def _name(model: ir.Model, signature: Signature) -> None:
    """Name the inputs, the outputs and their axes as in the signature.

    Axes are renamed in the whole graph. A weight with the name of an input or output is renamed.
    """
    taken = {spec.name for spec in (*signature.inputs, *signature.outputs)}
    for weight in [w for name, w in model.graph.initializers.items() if name in taken]:
        weight.name = f"{weight.name}.weight"
    names: dict[str, str] = {}
    for value, spec in zip(
        (*model.graph.inputs, *model.graph.outputs),
        (*signature.inputs, *signature.outputs),
        strict=True,
    ):
        value.name = spec.name
        for dim, name in zip(value.shape or (), spec.shape, strict=False):
            if isinstance(dim, ir.SymbolicDim) and dim.value and isinstance(name, str):
                names.setdefault(dim.value, name)
    nodes = model.graph.all_nodes()
    for value in (*model.graph.inputs, *(value for node in nodes for value in node.outputs)):
        if value.shape is not None and not value.shape.frozen:
            for axis, dim in enumerate(value.shape):
                if isinstance(dim, ir.SymbolicDim) and dim.value in names:
                    value.shape[axis] = names[dim.value]


def _strip_metadata(model: ir.Model) -> None:
    """Remove the exporter's metadata, which contains source paths and differs between machines."""
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
    """Hide warnings, and the exporter's log messages about packages that are not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

"""SavedModel -> ONNX via tf2onnx."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import onnx
import onnx_ir as ir
import tensorflow as tf
import tf2onnx
from tf2onnx import constants

from exporters import ROUTES
from exporters.base import Exported, Exporter, ExportOptions, Route
from exporters.onnx.reader import graphs, read_precision
from exporters.onnx.saving import save_graph
from models.keras.program import explained, inlinable, serving_of
from toolkit.core.artifact import Artifact
from toolkit.core.errors import SourceError, UsageError
from toolkit.core.specs import Signature
from toolkit.core.temporary import scratch_directory

ENTRY = "model.onnx"
MOST_OPSET = constants.OPSET_TO_IR_VERSION and max(constants.OPSET_TO_IR_VERSION)
OPSET = min(18, MOST_OPSET)


@final
class OnnxFromTensorFlow(Exporter):
    """Exporter via tf2onnx, which folds batch norms and transposes kernels to ONNX's layout."""

    route: ClassVar[Route] = ROUTES["onnx-from-tensorflow"]

    def export(self, source: Artifact, directory: Path, options: ExportOptions) -> Exported:
        opset = options.opset or OPSET
        if opset > MOST_OPSET:
            raise UsageError(
                f"Got --opset {opset}; tf2onnx {tf2onnx.__version__} writes up to {MOST_OPSET}.",
                hint=f"Give --opset {MOST_OPSET} or less.",
            )
        with (
            _quiet(),
            scratch_directory() as scratch,
            explained(
                f"tf2onnx {tf2onnx.__version__} could not convert {source.path}",
                "The message names what it does not support; choose another target.",
            ),
        ):
            serve = inlinable(serving_of(source, source.signature), source.signature, scratch)
            model, _ = tf2onnx.convert.from_function(
                serve,
                input_signature=serve.input_signature,
                opset=opset,
                custom_op_handlers=HANDLERS,
            )
            _hold_captured(model, serve.get_concrete_function())
        _refuse_foreign(model, source)
        _name(model, source.signature)
        save_graph(ir.from_proto(model), directory / ENTRY)
        return Exported(
            entry=ENTRY,
            precision=read_precision(directory / ENTRY),
            options={
                "exporter": "tf2onnx",
                "opset": opset,
                "tf2onnx": tf2onnx.__version__,
                "tensorflow": tf.__version__,
            },
        )


def _erfc(graph: Any, node: Any, _: str, __: Any) -> None:
    """Convert erfc(x), which ONNX does not have, to 1 - erf(x)."""
    dtype = graph.get_dtype(node.output[0])
    one = np.array(1, onnx.helper.tensor_dtype_to_np_dtype(dtype))
    constant = graph.make_const(tf2onnx.utils.make_name(node.name), one)
    erf = graph.make_node("Erf", [node.input[0]])
    shape = graph.get_shape(node.output[0])
    graph.remove_node(node.name)
    graph.make_node(
        "Sub",
        [constant.output[0], erf.output[0]],
        outputs=node.output,
        name=node.name,
        shapes=[shape],
        dtypes=[dtype],
    )


HANDLERS: dict[str, Any] = {"Erfc": (_erfc, [])}  # operators that tf2onnx does not convert


def _hold_captured(model: onnx.ModelProto, function: Any) -> None:
    """Store the tensors that a function captured as initializers; tf2onnx makes them inputs."""
    captured = {
        internal.name: external
        for external, internal in function.graph.captures
        if external.dtype != tf.resource
    }
    read = {name for graph in graphs(model.graph) for node in graph.node for name in node.input}
    given = list(model.graph.input)
    del model.graph.input[:]
    for value in given:
        if value.name not in captured:
            model.graph.input.append(value)
        elif value.name in read:
            array = captured[value.name].numpy()
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))


def _refuse_foreign(model: onnx.ModelProto, source: Artifact) -> None:
    """Raise SourceError if tf2onnx left TensorFlow operators unconverted."""
    left = sorted(
        {
            node.op_type
            for graph in graphs(model.graph)
            for node in graph.node
            if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type)
        }
    )
    if left:
        raise SourceError(
            f"tf2onnx {tf2onnx.__version__} could not convert {source.path}: ONNX has no operator "
            f"{', '.join(left)}.",
            hint="Write that layer with other operators, or export to savedmodel or litert.",
        )


def _name(model: onnx.ModelProto, signature: Signature) -> None:
    """Order inputs and outputs, and name their dynamic axes, as in the signature.

    tf2onnx does not keep the order, and numbers the axes.
    """
    specs = {spec.name: spec for spec in (*signature.inputs, *signature.outputs)}
    places = {name: place for place, name in enumerate(specs)}
    for values in (model.graph.input, model.graph.output):
        values.sort(key=lambda value: places[value.name])
    for value in (*model.graph.input, *model.graph.output):
        for dim, name in zip(
            value.type.tensor_type.shape.dim, specs[value.name].shape, strict=True
        ):
            if not isinstance(name, int) and not dim.HasField("dim_value"):
                dim.dim_param = name or ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide tf2onnx's log messages about its own steps."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

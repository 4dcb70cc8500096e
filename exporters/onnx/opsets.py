"""Conversion of ONNX graphs to a newer opset."""

from __future__ import annotations

import onnx
import onnx.shape_inference
from onnx import version_converter

from exporters.onnx.reader import graphs
from toolkit.core.errors import SourceError

DOMAIN = ""
# From this opset on, BatchNormalization has `training_mode`, Dropout and ReduceSum take their
# settings as inputs, and all operators that calibration quantises have their current definition.
CURRENT = 15
SCAN = 9  # from this opset on, a Scan has no batch axis
FAILURES = (version_converter.ConvertError, onnx.shape_inference.InferenceError)


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that a graph uses, 1 if it declares none."""
    return next((int(o.version) for o in model.opset_import if o.domain in (DOMAIN, "ai.onnx")), 1)


def upgraded(model: onnx.ModelProto, least: int = CURRENT) -> onnx.ModelProto:
    """Return the graph in opset `least`, or unchanged if its opset is not lower.

    ONNX's version converter rewrites the operators whose definitions changed in between. Raises
    SourceError for a graph that it cannot convert, such as one with removed operators.
    """
    now = opset_of(model)
    if now >= least:
        return model
    if now < SCAN and any(
        node.op_type == "Scan" for graph in graphs(model.graph) for node in graph.node
    ):
        raise SourceError(
            f"The graph has opset {now} and cannot be converted to opset {least}: a Scan has a "
            f"batch axis below opset {SCAN}, which the converter does not know.",
            hint=f"Export the model with opset {least} or later.",
        )
    try:
        return version_converter.convert_version(model, least)
    except (*FAILURES, RuntimeError, ValueError, TypeError) as error:
        told = " ".join(str(error).split()).rstrip(".")
        raise SourceError(
            f"The graph has opset {now} and cannot be converted to opset {least}: {told}.",
            hint=f"Export the model with opset {least} or later.",
        ) from error

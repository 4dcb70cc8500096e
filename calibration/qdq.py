"""Quantise an ONNX graph with given ranges, via onnxruntime.quantization."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from calibration.base import Range
from calibration.presets import Recipe
from toolkit.core.errors import SourceError, unknown_name

LEAST_OPSET = 13  # the first with an axis in QuantizeLinear
COPY = re.compile(r"\d+$")  # suffix that the quantiser appends to the name of a copied tensor
OPERATORS = sorted({*QDQRegistry, *QLinearOpsRegistry})


def check_nodes(source: Path, excluded: Collection[str]) -> None:
    """Raise SourceError if the graph's opset is too old to be quantised.

    Raise UnknownNameError if the graph has no node with a name in `excluded`.
    """
    model = onnx.load(source, load_external_data=False)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < LEAST_OPSET:
        raise SourceError(
            f"{source.name} has opset {opset}, expected {LEAST_OPSET} or more.",
            hint="Export it again, or convert it: onnx.version_converter.convert_version.",
        )
    name_nodes(model)
    known = [node.name for node in model.graph.node if node.op_type != "Constant"]
    for name in excluded:
        if name not in known:
            raise unknown_name("node", name, known)


def quantisable(source: Path, excluded: Collection[str]) -> dict[str, str]:
    """Return the nodes that may be quantised, as name to operator, in the order of the graph."""
    model = onnx.load(source, load_external_data=False)
    name_nodes(model)
    return {
        node.name: node.op_type
        for node in model.graph.node
        if node.op_type in OPERATORS and node.name not in excluded
    }


def name_nodes(model: onnx.ModelProto) -> None:
    """Name each node without a unique name after its first output, as TensorRT does."""
    taken: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in taken:
            node.name = f"node_of_{node.output[0]}"
        taken.add(node.name)


def quantise(
    source: Path,
    target: Path,
    ranges: Mapping[str, Range],
    recipe: Recipe,
    excluded: Collection[str] = (),
) -> None:
    """Write the graph of `source`, quantised, to `target`.

    Each input and output of an 8-bit kernel gets a pair of QuantizeLinear and DequantizeLinear,
    except tensors that only `excluded` nodes use. The graph must have passed `check_nodes`. Raise
    SourceError if nothing is quantised.
    """
    model = onnx.load(source)
    name_nodes(model)
    own = {tensor.name for tensor in model.graph.initializer}
    activations = QuantType.QInt8 if recipe.symmetric else QuantType.QUInt8
    quantiser = QDQQuantizer(
        model,
        recipe.per_channel,
        recipe.reduced,
        QuantType.QInt8,
        activations,
        {
            name: TensorData(lowest=np.float32(found.low), highest=np.float32(found.high))
            for name, found in ranges.items()
        },
        [],
        list(excluded),
        OPERATORS,
        {
            "ActivationSymmetric": recipe.symmetric,
            "WeightSymmetric": True,
            "QuantizeBias": recipe.biases,
            "AddQDQPairToWeight": recipe.weights_in_float,
            "TensorQuantOverrides": _by_tensor(model.graph),
        },
    )
    quantiser.quantize_model()
    quantiser.model.topological_sort()
    done = quantiser.model.model
    if not any(node.op_type == "QuantizeLinear" for node in done.graph.node):
        raise SourceError(
            f"{source} has nothing that is quantised{' but what was excluded' * bool(excluded)}.",
            hint=f"What is quantised are operators such as {', '.join(OPERATORS[:8])}, on float32.",
        )
    _merge_copies(done.graph, own)
    onnx.save(done, target)


def _by_tensor(graph: onnx.GraphProto) -> dict[str, list[dict[str, object]]]:
    """Return overrides for weights that get a single scale: those of grouped ConvTranspose nodes.

    The second axis of these weights has the channels of one group, not of all groups.
    """
    return {
        node.input[1]: [{"quant_type": QuantType.QInt8, "symmetric": True}]
        for node in graph.node
        if node.op_type == "ConvTranspose"
        and any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
    }


def _merge_copies(graph: onnx.GraphProto, own: Collection[str]) -> None:
    """Merge initializers that the quantiser copied for a second reader and left unchanged.

    `own` has the names of the initializers before quantisation.
    """
    held = {tensor.name: tensor for tensor in graph.initializer}
    original = {
        name: origin
        for name in held.keys() - own
        if (origin := COPY.sub("", name)) in own and _same(held[name], held.get(origin))
    }
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = original.get(name, name)
    for name in original:
        graph.initializer.remove(held[name])


def _same(one: onnx.TensorProto, other: onnx.TensorProto | None) -> bool:
    if other is None or (one.data_type, list(one.dims)) != (other.data_type, list(other.dims)):
        return False
    a, b = onnx.numpy_helper.to_array(one), onnx.numpy_helper.to_array(other)
    return a.tobytes() == b.tobytes()

"""Pass that folds batch norms into the convolutions before them."""

from __future__ import annotations

from typing import final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from exporters.passes.constants import constant, is_operator, new_constant, put_in_place

EPSILON = 1e-5  # ONNX's default


@final
class FoldBatchNorm(ir.passes.InPlacePass):
    """Pass that replaces Conv and BatchNormalization by one Conv.

    All of their tensors must be constant, and nothing else may read the output of the convolution.
    With scale = weight / sqrt(var + eps), the kernel is multiplied by scale along its first axis,
    and the bias becomes (bias - mean) * scale + shift. Computed in float64, and rounded once.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        folds: dict[tuple[str | None, ...], tuple[ir.Value, ir.Value]] = {}
        count = 0
        for norm in [node for node in model.graph if is_operator(node, "BatchNormalization")]:
            conv = norm.inputs[0].producer() if norm.inputs[0] is not None else None
            if conv is not None and _fits(conv, norm):
                _fold(model.graph, conv, norm, folds)
                count += 1
        if count:
            RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=count > 0)


def _fits(conv: ir.Node, norm: ir.Node) -> bool:
    training = norm.attributes.get("training_mode")
    result = conv.outputs[0]
    tensors = [*conv.inputs[1:], *norm.inputs[1:]]
    return (
        is_operator(conv, "Conv")
        and (training is None or training.as_int() == 0)
        and len(result.uses()) == 1
        and not result.is_graph_output()
        and all(constant(tensor) is not None for tensor in tensors if tensor is not None)
        and not any(output.uses() for output in norm.outputs[1:])
    )


def _fold(
    graph: ir.Graph,
    conv: ir.Node,
    norm: ir.Node,
    folds: dict[tuple[str | None, ...], tuple[ir.Value, ir.Value]],
) -> None:
    """Replace a Conv and a BatchNormalization by one Conv.

    `folds` holds the new tensors, because a convolution that is applied twice shares its kernel.
    """
    tensors = [*conv.inputs[1:], *norm.inputs[1:]]
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else EPSILON
    key = (*(None if value is None else value.name for value in tensors), str(epsilon))
    if key not in folds:
        kernel, bias = _folded(conv, norm, epsilon)
        name = conv.inputs[1].name if conv.inputs[1] is not None else None
        folds[key] = (
            new_constant(graph, f"{name}.folded", kernel),
            new_constant(graph, f"{name}.folded.bias", bias),
        )
    made = ir.Node(
        "", "Conv", [conv.inputs[0], *folds[key]], conv.attributes.values(), name=conv.name
    )
    put_in_place(graph, [made], norm.outputs[0], [norm, conv])


def _folded(conv: ir.Node, norm: ir.Node, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    kernel, bias = (constant(v) for v in (*conv.inputs[1:], None)[:2])
    assert kernel is not None
    weight, shift, mean, variance = (np.float64(constant(v)) for v in norm.inputs[1:])
    scale = weight / np.sqrt(variance + epsilon)
    own = 0.0 if bias is None else np.float64(bias)
    folded = np.float64(kernel) * scale.reshape(-1, *[1] * (kernel.ndim - 1))
    return folded.astype(kernel.dtype), ((own - mean) * scale + shift).astype(kernel.dtype)

"""How an ONNX graph says what its stored whole numbers stand for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from exporters.base import Quantisation


def quantisations(
    graph: onnx.GraphProto, constants: Mapping[str, np.ndarray]
) -> dict[str, Quantisation]:
    """By name, those of constants that a DequantizeLinear of the main graph takes, with a scale and
    zero point that are constant too; those in blocks are left out."""
    found = {}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        scale = constants.get(node.input[1])
        named = node.input[2] if len(node.input) > 2 else ""
        zero = constants.get(named) if named else np.zeros(1, np.int32)
        if scale is None or zero is None or scale.ndim > 1:
            continue
        numbers = constants[node.input[0]]
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        fits = scale.size == 1 or (
            -numbers.ndim <= axis < numbers.ndim and numbers.shape[axis] == scale.size
        )
        if fits:
            found[node.input[0]] = Quantisation(
                scale=scale.reshape(-1), zero_point=zero.reshape(-1), axis=axis
            )
    return found

"""Scales and zero points of the integers that an ONNX graph stores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from exporters.base import Quantisation


def quantisations(
    graph: onnx.GraphProto, constants: Mapping[str, np.ndarray]
) -> dict[str, Quantisation]:
    """Return the quantisation of each constant that a DequantizeLinear reads, by constant name.

    Only nodes of the main graph count. Scale and zero point must be constant too. Block-wise
    quantisation is left out.
    """
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

"""Pass that removes a channel with one constant value from the convolution that reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np
import onnx_ir as ir
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveUnusedNodesPass

from exporters.passes.constants import (
    constant,
    fill_of,
    is_operator,
    new_constant,
    put_in_place,
)


@final
class FoldTimeChannel(ir.passes.InPlacePass):
    """Pass that turns Conv over Concat(h, t), with t one number, into Conv over h plus a map.

    conv([h, t]) = conv_h(h) + t * conv_t(1). The last term is a constant map: it is the same in
    every forward pass, but not at every position, because the padding has no t. The dynamics of an
    ODE layer take the time in this way (models/odenet.py), once per step. Computed in float64, and
    rounded once.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        made = _Made()
        count = 0
        for conv in [node for node in model.graph if is_operator(node, "Conv")]:
            clock = _clock_of(conv)
            if clock is not None:
                _fold(model.graph, conv, clock, made)
                count += 1
        if count:
            RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=count > 0)

    def ensures(self, model: ir.Model) -> None:
        left = [node.name for node in model.graph if is_operator(node, "Conv") and _clock_of(node)]
        if left:
            raise ir.passes.PostconditionError(f"{left[0]} still reads a channel of one number.")


@dataclass(frozen=True, kw_only=True)
class _Clock:
    """State of a concatenation, [N, C, H, W], and the number that fills the channels after it."""

    state: ir.Value
    concat: ir.Node
    number: float
    channels: int  # of the state
    sides: tuple[int, int]


@dataclass(kw_only=True)
class _Made:
    """Constants created so far: steps share a kernel, and each time has one map."""

    kernels: dict[tuple[str | None, int], ir.Value] = field(default_factory=dict)
    maps: dict[tuple[str | None, int, float], ir.Value] = field(default_factory=dict)


def _clock_of(conv: ir.Node) -> _Clock | None:
    """Return the state and number that a convolution reads as [h, t], or None if it does not.

    The convolution must have fixed sides, one group and a constant kernel.
    """
    source, kernel = conv.inputs[0], constant(conv.inputs[1])
    concat = source.producer() if source is not None else None
    group = conv.attributes.get("group")
    if (
        kernel is None
        or kernel.ndim != 4
        or (group is not None and group.as_int() != 1)
        or concat is None
        or not is_operator(concat, "Concat")
        or len(concat.inputs) != 2
        or concat.attributes["axis"].as_int() != 1
    ):
        return None
    state, clock = concat.inputs
    number = fill_of(clock)
    shape = None if state is None else state.shape
    if state is None or number is None or shape is None or len(shape) != 4:
        return None
    channels, *sides = shape[1], shape[2], shape[3]
    if not isinstance(channels, int) or not all(isinstance(side, int) for side in sides):
        return None
    return _Clock(
        state=state,
        concat=concat,
        number=number,
        channels=channels,
        sides=(int(sides[0]), int(sides[1])),  # type: ignore[arg-type]
    )


def _fold(graph: ir.Graph, conv: ir.Node, clock: _Clock, made: _Made) -> None:
    name = conv.inputs[1].name if conv.inputs[1] is not None else None
    kernel = constant(conv.inputs[1])
    assert kernel is not None
    channels = clock.channels
    if (name, channels) not in made.kernels:
        made.kernels[name, channels] = new_constant(graph, f"{name}.state", kernel[:, :channels])
    inputs = [clock.state, made.kernels[name, channels], *conv.inputs[2:]]
    nodes = [ir.Node("", "Conv", inputs, conv.attributes.values(), name=conv.name)]
    if clock.number:
        key = (name, channels, clock.number)
        if key not in made.maps:
            ramp = _convolved(kernel[:, channels:], clock.sides, conv.attributes)
            values = (clock.number * ramp).astype(kernel.dtype)
            made.maps[key] = new_constant(graph, f"{name}.time", values)
        nodes[0].outputs[0].type = conv.outputs[0].type
        nodes[0].outputs[0].shape = conv.outputs[0].shape
        nodes.append(ir.Node("", "Add", [nodes[0].outputs[0], made.maps[key]]))
    put_in_place(graph, nodes, conv.outputs[0], [conv])


def _convolved(
    kernel: np.ndarray, sides: tuple[int, int], attributes: Mapping[str, ir.Attr]
) -> np.ndarray:
    """Return conv_t(1) in float64, [1, C, H', W'], computed with ONNX's reference evaluator."""
    given = {name: attribute.value for name, attribute in attributes.items()}
    node = helper.make_node("Conv", ["ones", "kernel"], ["map"], **given)
    ones = np.ones((1, kernel.shape[1], *sides))
    (found,) = ReferenceEvaluator(node).run(None, {"ones": ones, "kernel": np.float64(kernel)})
    return np.asarray(found)

"""Values that a TensorFlow graph computes from constants alone, and ways to fold its layers.

Converters compute such values once and store the result. They also fold multiplications and
additions of constants into the kernel and the bias of an adjacent layer. With

    before(x) = x * s + t,  layer(x) = x @ W,  behind(y) = y * u + v,

`behind(layer(before(x)))` is a layer with the kernel `s * W * u` and the bias `(t @ W) * u + v`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np

from exporters.base import Fold, FoldedValues

MOST_STEPS = 6  # before a layer, and also after it
SUMS = frozenset({"AddV2", "Add", "BiasAdd"})
NORMS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
PASSING = frozenset({"Identity", "Reshape", "Squeeze", "ExpandDims", "Pad", "PadV2"})
LAYERS = frozenset({"Conv2D", "Conv3D", "DepthwiseConv2dNative", "MatMul", "BatchMatMulV2"})
TRANSPOSED = frozenset({"Conv2DBackpropInput", "Conv3DBackpropInputV2"})  # kernels [..., out, in]
NONE: frozenset[str] = frozenset()


@final
@dataclass(frozen=True, kw_only=True)
class Step:
    """Operation `x * scale + shift`, where scale and shift have the shape [1] or [C].

    C is the extent of the last axis. `names` are the constants that scale and shift depend on.
    `is_computed` is True if they are computed from these rather than stored.
    """

    scale: np.ndarray
    shift: np.ndarray
    names: frozenset[str]
    is_computed: bool


def folds_of(function: Any, names: Mapping[str, str]) -> list[Fold]:
    """Return the folds that a converter may make, those with the most steps first.

    `function` is a graph whose variables are constants. `names` has the names of constants by node.
    """
    return sorted(_Folder(function, names).folds(), key=lambda fold: -fold.steps)


class _Folder:
    def __init__(self, function: Any, names: Mapping[str, str]) -> None:
        self.nodes = function.graph.get_operations()  # in topological order
        # The nodes whose values depend on no input, each with the constants that it depends on.
        self.sources: dict[str, frozenset[str]] = {}
        for node in self.nodes:
            inner = [self.sources.get(taken.op.name) for taken in node.inputs]
            fixed = [names for names in inner if names is not None]
            if node.type == "Const":
                self.sources[node.name] = frozenset({names.get(node.name, node.name)})
            elif inner and len(fixed) == len(inner) and not node.op_def.is_stateful:
                self.sources[node.name] = NONE.union(*fixed)
        self.values = self._values(function)
        self.steps = {
            node.name: step
            for node in self.nodes
            if node.name not in self.sources and (step := self._step(node)) is not None
        }

    def folds(self) -> Iterator[Fold]:
        for node in self.nodes:
            if node.name in self.steps:
                row = [self.steps[node.name], *self._behind(node)][:MOST_STEPS]
                for count in range(1, len(row) + 1):
                    taken = row[:count]
                    yield Fold(
                        names=NONE.union(*(step.names for step in taken)),
                        factors=NONE.union(*(step.names for step in taken if _scales(step))),
                        steps=count,
                        how=f"computed at {node.name}",
                        compute=partial(_joined, taken),
                    )
            elif node.type in LAYERS | TRANSPOSED and node.inputs[1].name in self.values:
                yield from self._of_layer(node)

    def _of_layer(self, node: Any) -> Iterator[Fold]:
        kernel, own = self.values[node.inputs[1].name], self.sources[node.inputs[1].op.name]
        before, behind = self._before(node), self._behind(node)
        for first in range(len(before) + 1):
            for last in range(len(behind) + 1):
                taken = [*before[:first], *behind[:last]]
                scaled = own if any(map(_scales, taken)) else NONE
                yield Fold(
                    names=scaled.union(*(step.names for step in taken)),
                    factors=scaled.union(*(step.names for step in taken if _scales(step))),
                    steps=len(taken),
                    how=f"folded at {node.name}",
                    compute=partial(_layer, node, kernel, before[:first][::-1], behind[:last]),
                )

    def _values(self, function: Any) -> dict[str, np.ndarray]:
        """Return the floating-point tensors, by name, that constant nodes pass to other nodes."""
        wanted = {
            taken.name: taken
            for node in self.nodes
            if node.name not in self.sources
            for taken in node.inputs
            if taken.op.name in self.sources and taken.dtype.is_floating
        }
        if not wanted:
            return {}
        values = function.prune([], list(wanted.values()))()
        return {name: value.numpy() for name, value in zip(wanted, values, strict=True)}

    def _step(self, node: Any) -> Step | None:
        """Return the step that a node applies to its only non-constant input, or None."""
        held = [(place, t) for place, t in enumerate(node.inputs) if t.name in self.values]
        names = NONE.union(*(self.sources[tensor.op.name] for _, tensor in held))
        arrays = [self.values[tensor.name].astype(np.float64) for _, tensor in held]
        with np.errstate(invalid="ignore", divide="ignore"):
            if node.type in NORMS and [place for place, _ in held] == [1, 2, 3, 4]:
                gamma, beta, mean, variance = arrays
                scale = gamma / np.sqrt(variance + node.get_attr("epsilon"))
                shift = beta - mean * scale
                return Step(scale=scale, shift=shift, names=names, is_computed=True)
            if len(held) != 1 or len(node.inputs) != 2 or not _is_per_channel(arrays[0]):
                return None
            array, is_second = arrays[0].reshape(-1), held[0][0] == 1
            made = partial(Step, names=names, is_computed=not _is_stored(held[0][1].op))
            one, zero = np.ones(1), np.zeros(1)
            if node.type == "Mul":
                return made(scale=array, shift=zero)
            if node.type == "RealDiv" and is_second:
                return made(scale=1 / array, shift=zero, is_computed=True)
            if node.type in SUMS:
                return made(scale=one, shift=array)
            if node.type == "Sub":
                signs = (1, -1) if is_second else (-1, 1)
                return made(scale=signs[0] * one, shift=signs[1] * array)
        return None

    def _behind(self, node: Any) -> list[Step]:
        """Return the steps after a node, as long as nothing else reads the values in between."""
        found: list[Step] = []
        while len(found) < MOST_STEPS and len(users := node.outputs[0].consumers()) == 1:
            node = users[0]
            if node.name in self.steps:
                found.append(self.steps[node.name])
            elif node.type not in PASSING:
                break
        return found

    def _before(self, layer: Any) -> list[Step]:
        """Return the steps before the input of a layer, the last one first."""
        found: list[Step] = []
        node = layer.inputs[2 if layer.type in TRANSPOSED else 0].op
        while len(found) < MOST_STEPS and (node.name in self.steps or node.type in PASSING):
            if node.name in self.steps:
                found.append(self.steps[node.name])
            node = next(t.op for t in node.inputs if t.op.name not in self.sources)
        return found


def _is_per_channel(array: np.ndarray) -> bool:
    """Return whether no axis but the last has an extent other than 1."""
    return bool(array.size == (array.shape[-1] if array.ndim else 1))


def _is_stored(node: Any) -> bool:
    """Return whether a constant node passes on a stored tensor."""
    while node.type in PASSING:
        node = node.inputs[0].op
    return bool(node.type == "Const")


def _scales(step: Step) -> bool:
    return bool((step.scale != 1).any())


def _shifts(step: Step) -> bool:
    return bool((step.shift != 0).any())


def _joined(steps: Sequence[Step]) -> FoldedValues | None:
    """Return the scale and shift of successive steps, or None if their shapes do not match."""
    factor, shift, terms = np.ones(1), np.zeros(1), np.zeros(1)
    for step in steps:
        widths = {array.size for array in (factor, shift, step.scale, step.shift)} - {1}
        if len(widths) > 1:
            return None
        factor = factor * step.scale
        shift = shift * step.scale + step.shift
        terms = terms * np.abs(step.scale) + np.abs(step.shift)
    scaling = [step for step in steps if _scales(step)]
    shifting = [place for place, step in enumerate(steps) if _shifts(step)]
    is_product = len(scaling) > 1 or any(step.is_computed for step in scaling)
    is_sum = (
        len(shifting) > 1
        or any(steps[place].is_computed for place in shifting)
        or any(_scales(step) for place in shifting for step in steps[place + 1 :])
    )
    return FoldedValues(
        factor=factor,
        factor_terms=np.abs(factor) * is_product,
        shift=shift,
        shift_terms=terms * is_sum,
    )


def _layer(
    node: Any, kernel: np.ndarray, before: Sequence[Step], behind: Sequence[Step]
) -> FoldedValues | None:
    """Return the kernel and the bias, [C] or [1], of a layer with steps folded into it.

    Without a step that scales, the kernel is unchanged and not a fold: the factor is 1. Returns
    None if the shapes do not match.
    """
    given, done = _joined(before), _joined(behind)
    if given is None or done is None:
        return None
    kernel = kernel.astype(np.float64)
    depthwise = node.type == "DepthwiseConv2dNative"
    axes = (kernel.ndim - 1, kernel.ndim - 2)
    if node.type in TRANSPOSED or (node.type == "MatMul" and node.get_attr("transpose_b")):
        axes = axes[::-1]
    outputs, inputs = axes
    channels = kernel.shape[-2] * kernel.shape[-1] if depthwise else kernel.shape[outputs]
    if not {given.factor.size, given.shift.size} <= {1, kernel.shape[inputs]}:
        return None
    if not {done.factor.size, done.shift.size} <= {1, channels}:
        return None
    summed = tuple(axis for axis in range(kernel.ndim) if axis != outputs)
    if depthwise:
        summed = tuple(range(kernel.ndim - 2))

    def along(values: np.ndarray, axis: int) -> np.ndarray:
        return values.reshape([-1 if place == axis else 1 for place in range(kernel.ndim)])

    shifted = kernel * along(given.shift, inputs)
    shift = shifted.sum(axis=summed).reshape(-1)
    # A shift that passes through the kernel is a sum: it is rounded, unlike a stored constant.
    own_terms = np.abs(kernel) * np.abs(along(given.shift, inputs))
    terms = own_terms.sum(axis=summed).reshape(-1)
    scale = done.factor
    wide = depthwise and scale.size > 1
    factor = np.ones(1)
    if (given.factor != 1).any() or (scale != 1).any():
        behind_it = scale.reshape(kernel.shape[-2:]) if wide else along(scale, outputs)
        factor = kernel * along(given.factor, inputs) * behind_it
    through = bool(shift.any())
    return FoldedValues(
        factor=factor,
        factor_terms=np.abs(factor),
        shift=shift * scale + done.shift,
        shift_terms=terms * np.abs(scale) + (np.abs(done.shift) if through else done.shift_terms),
    )

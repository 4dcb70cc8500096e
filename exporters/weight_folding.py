"""Constants that were computed beforehand, recomputed and compared.

In evaluation a batch norm is a multiplication and an addition of fixed numbers,

    scale = weight / sqrt(running_var + eps),  shift = bias - running_mean * scale,

so a converter may store these two in place of the four, or multiply the kernel of the convolution
in front of it and leave its arithmetic out. `folded` finds these by the names of the weights;
`computed` finds whatever a source's graph says can be computed beforehand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from exporters.base import Fold, StoredTensor
from exporters.weight_matching import Found, Match, Room, orders

# torch's default and Keras'; then those of Keras' ResNets and DenseNets, and of other model zoos.
EPSILONS = (1e-5, 1e-3, 1.001e-5, 1e-6, 1e-4, 2e-5)
# What stands between a layer and its part, and what weight, bias, mean and variance are called.
SPELLINGS = (
    (".", ("weight", "bias", "running_mean", "running_var")),
    ("/", ("gamma", "beta", "moving_mean", "moving_variance")),
)
BIASES = frozenset({"bias", "beta"})
NOTHING_ADDED = "zeros, which are not added"
# A fold is a sum, a root, a division, a product and two sums, each rounded to float32 by half of
# 2**-23 of its terms; twice that.
ROUNDING = 8 * 2.0**-24


@final
@dataclass(frozen=True, kw_only=True)
class BatchNorm:
    """The four tensors [C] of a batch norm, and the names of those that the model has: one without
    a weight multiplies by 1, one without a bias adds 0."""

    layer: str
    names: tuple[str | None, str | None, str, str]
    weight: np.ndarray
    bias: np.ndarray
    running_mean: np.ndarray
    running_var: np.ndarray

    def scale(self, epsilon: float) -> np.ndarray:
        """In float64."""
        with np.errstate(invalid="ignore"):  # of a variance below zero, which matches nothing
            return self.weight.astype(np.float64) / np.sqrt(
                self.running_var.astype(np.float64) + epsilon
            )

    def shift(
        self, epsilon: float, bias: np.ndarray | float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """In float64, for what comes with a bias of its own; and the size of its terms."""
        scale = self.scale(epsilon)
        terms = np.stack([self.bias, -scale * self.running_mean, scale * np.float64(bias)])
        return terms.sum(axis=0), np.abs(terms).sum(axis=0)


def computed(
    unmatched: Mapping[str, np.ndarray],
    stored: Sequence[StoredTensor],
    room: Room,
    folds: Sequence[Fold],
) -> tuple[dict[str, Found], set[str]]:
    """The weights that are stored as the result of a fold, and the names of what is stored of it.

    A factor of 1 and a shift of 0 need not be stored.
    """
    found: dict[str, Found] = {}
    results: set[str] = set()
    for fold in folds:
        wanted = fold.names & (unmatched.keys() - found.keys())
        with np.errstate(invalid="ignore", over="ignore"):
            values = fold.compute() if wanted else None
        if values is None:
            continue
        free = [tensor for tensor in room.free(stored) if tensor.array.dtype.kind == "f"]
        sized = [tensor for tensor in free if tensor.array.size == values.factor.size]
        place: tuple[StoredTensor | None, float] | None = (None, 0.0)
        if (values.factor != 1).any():
            place = _nearest(values.factor, values.factor_terms, sized)
        rest = _added(values.shift, values.shift_terms, free)
        if place is None or rest is None:
            continue
        taken = {tensor.name: tensor for tensor, _ in (place, rest) if tensor is not None}
        for tensor in taken.values():
            room.take(tensor)
        results |= taken.keys()
        for name in wanted:
            result, error = place if name in fold.factors else rest
            found[name] = Found(match=Match.FOLDED, stored=result, how=fold.how, error=error)
    return found, results


def folded(
    weights: Mapping[str, np.ndarray],
    unmatched: Mapping[str, np.ndarray],
    stored: Sequence[StoredTensor],
    room: Room,
) -> dict[str, Found]:
    """The batch norms of which neither statistic is stored, and the kernels and biases in front of
    them, wherever a fold of one by the other is.

    Where one of the four alone is not there, it is not folded but altered: a fold leaves neither
    mean nor variance.
    """
    found: dict[str, Found] = {}
    free = [tensor for tensor in room.free(stored) if tensor.array.dtype.kind == "f"]
    for norm in batch_norms(weights):
        if not unmatched.keys() >= set(norm.names[2:]):
            continue
        # A variance below zero, or a number near the largest, has no product: what comes of it is
        # NaN or infinite, and equal to nothing that is stored.
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            for epsilon in EPSILONS:
                left = {n: array for n, array in unmatched.items() if n not in found}
                # A scale that is one number everywhere fits along any axis: the usual one first.
                explained = (
                    _kernel(norm, epsilon, left, free, usual=True)
                    or _alone(norm, epsilon, free)
                    or _kernel(norm, epsilon, left, free, usual=False)
                )
                if explained:
                    found.update(explained)
                    break
    for tensor in {p.stored.name: p.stored for p in found.values() if p.stored}.values():
        room.take(tensor)
    return found


def left_out(unmatched: Mapping[str, np.ndarray], free: Sequence[StoredTensor]) -> dict[str, Found]:
    """Biases of zeros, of which converters leave the addition out: those of whose size nothing is
    stored that no weight accounts for."""
    sizes = {tensor.array.size for tensor in free if not _is_uniform(tensor)}
    return {
        name: Found(match=Match.FOLDED, stored=None, how=NOTHING_ADDED)
        for name, array in unmatched.items()
        if re.split(r"[./]", name)[-1] in BIASES and not array.any() and array.size not in sizes
    }


def batch_norms(weights: Mapping[str, np.ndarray]) -> Iterator[BatchNorm]:
    """Every layer with a mean and a variance, as torch or Keras calls them."""
    for between, parts in SPELLINGS:
        for name in weights:
            layer, _, part = name.rpartition(between)
            names = [f"{layer}{between}{other}" for other in parts]
            if part != parts[-1] or names[2] not in weights:
                continue
            mean, variance = weights[names[2]], weights[names[3]]
            scale, shift = (name if name in weights else None for name in names[:2])
            yield BatchNorm(
                layer=layer,
                names=(scale, shift, names[2], names[3]),
                weight=np.ones_like(variance) if scale is None else weights[scale],
                bias=np.zeros_like(mean) if shift is None else weights[shift],
                running_mean=mean,
                running_var=variance,
            )


def _kernel(
    norm: BatchNorm,
    epsilon: float,
    unmatched: Mapping[str, np.ndarray],
    free: Sequence[StoredTensor],
    *,
    usual: bool,
) -> dict[str, Found]:
    """A kernel times the scale, along the usual axis or another, and the bias that comes of it."""
    scale = norm.scale(epsilon)
    kernels = (
        (name, kernel, along)
        for name, kernel in unmatched.items()
        if kernel.ndim >= 2 and kernel.dtype.kind == "f"
        for is_usual, along in _along(scale, kernel.shape, "/" in name)
        if is_usual is usual
    )
    for name, kernel, along in kernels:
        product = kernel.astype(np.float64) * along
        place = _nearest(product, np.abs(product), [t for t in free if t.array.size == kernel.size])
        if place is None:
            continue
        between = "/" if "/" in name else "."
        own = f"{name.rpartition(between)[0]}{between}bias"
        bias = unmatched.get(own)
        offset, terms = norm.shift(epsilon, 0.0 if bias is None else bias)
        rest = _added(offset, terms, free)
        if rest is None:
            continue
        how = f"times {norm.layer}, eps {epsilon:g}"
        names = [(name, place), *((n, rest) for n in norm.names if n is not None)]
        names += [] if bias is None else [(own, rest)]
        return {
            one: Found(match=Match.FOLDED, stored=tensor, how=how, error=error)
            for one, (tensor, error) in names
        }
    return {}


def _along(
    scale: np.ndarray, shape: tuple[int, ...], keras: bool
) -> Iterator[tuple[bool, np.ndarray]]:
    """The scale [C] along the output channels of a kernel, and whether it is the usual axis: the
    first in torch, the last in Keras. A transposed convolution has them on the second in torch, and
    on the last but one in Keras, whose depthwise kernels [..., C, M] have C times M of them."""
    count, last = len(scale), len(shape) - 1
    for axis, usual in ((last, keras), (0, not keras), (last - 1, False), (1, False)):
        if shape[axis] == count:
            along = scale.reshape([count if place == axis else 1 for place in range(len(shape))])
            yield usual or (keras and shape[last] == 1 and axis == last - 1), along
    if keras and shape[last] > 1 and shape[last] * shape[last - 1] == count:
        yield True, scale.reshape(shape[-2:])


def _alone(norm: BatchNorm, epsilon: float, free: Sequence[StoredTensor]) -> dict[str, Found]:
    """Scale and shift as tensors of their own."""
    scale = norm.scale(epsilon)
    place = _nearest(scale, np.abs(scale), [t for t in free if t.array.size == scale.size])
    rest = _added(*norm.shift(epsilon), free)
    if place is None or rest is None:
        return {}
    how = f"scale and shift of {norm.layer}, eps {epsilon:g}"
    return {
        name: Found(match=Match.FOLDED, stored=tensor, how=how, error=error)
        for name, (tensor, error) in zip(norm.names, (place, rest, rest, place), strict=True)
        if name is not None
    }


def _added(
    offset: np.ndarray, terms: np.ndarray, free: Sequence[StoredTensor]
) -> tuple[StoredTensor | None, float] | None:
    """As `_nearest`; zeros need not be stored. Where something else is added in their place, that
    is a stored tensor which no weight accounts for."""
    found = _nearest(offset, terms, [t for t in free if t.array.size == offset.size])
    return (None, 0.0) if found is None and not offset.any() else found


def _is_uniform(tensor: StoredTensor) -> bool:
    """Whether it is one number everywhere, as the scale of a batch norm before any training."""
    return tensor.array.size > 1 and bool((tensor.array == tensor.array.flat[0]).all())


def _nearest(
    values: np.ndarray, terms: np.ndarray, candidates: Sequence[StoredTensor]
) -> tuple[StoredTensor, float] | None:
    """The first stored tensor that is `values` within the rounding of their `terms`, in any order
    of the axes, and the largest difference. Without terms, every value must be equal."""
    for tensor in candidates:
        array = tensor.array.astype(np.float64)
        if not _could_be(array, values, terms):
            continue
        bounds = (moved for _, moved in orders(terms, array.shape))
        for (_, moved), bound in zip(orders(values, array.shape), bounds, strict=True):
            apart = np.abs(array - moved)
            if (apart <= ROUNDING * bound).all():
                return tensor, float(apart.max(initial=0.0))
    return None


def _could_be(array: np.ndarray, values: np.ndarray, terms: np.ndarray) -> bool:
    """Whether the sums of values and of squares differ by no more than rounding allows, whatever
    the order of the axes."""
    allowed = ROUNDING * terms
    size = np.abs(values)
    spare = values.size * 2.0**-52  # of the sums themselves
    apart = abs(array.sum() - values.sum())
    squares = abs((array * array).sum() - (values * values).sum())
    return bool(
        apart <= allowed.sum() + spare * size.sum()
        and squares <= (allowed * (2 * size + allowed)).sum() + spare * (size * size).sum()
    )

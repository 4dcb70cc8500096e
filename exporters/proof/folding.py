"""Detection of weights that a converter folded: constants are recomputed and compared.

In evaluation a batch norm multiplies by and adds fixed numbers,

    scale = weight / sqrt(running_var + eps),  shift = bias - running_mean * scale,

so a converter may store these two instead of the four, or multiply the kernel of the preceding
convolution by the scale and remove the batch norm. `folded` finds such results by the names of the
weights; `computed` finds every result that the folds of the source's graph describe.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from exporters.base import Fold, StoredTensor
from exporters.proof.matching import AvailableTensors, Found, Match, orders

# Defaults of torch and of Keras; then Keras' ResNets and DenseNets, and other model zoos.
EPSILONS = (1e-5, 1e-3, 1.001e-5, 1e-6, 1e-4, 2e-5)
# Separator of a layer and its part, and names of weight, bias, mean and variance: torch, Keras.
SPELLINGS = (
    (".", ("weight", "bias", "running_mean", "running_var")),
    ("/", ("gamma", "beta", "moving_mean", "moving_variance")),
)
BIASES = frozenset({"bias", "beta"})
NOTHING_ADDED = "zeros, which are not added"
# A fold takes six float32 operations: a sum, a root, a division, a product and two sums. Each
# rounds by up to 2**-24 of its terms; the factor 8 leaves a margin.
ROUNDING = 8 * 2.0**-24


@final
@dataclass(frozen=True, kw_only=True)
class BatchNorm:
    """Four tensors [C] of a batch norm, and the names of those that the model has.

    A batch norm without a weight multiplies by 1, and one without a bias adds 0.
    """

    layer: str
    names: tuple[str | None, str | None, str, str]
    weight: np.ndarray
    bias: np.ndarray
    running_mean: np.ndarray
    running_var: np.ndarray

    def scale(self, epsilon: float) -> np.ndarray:
        """Return the scale in float64."""
        with np.errstate(invalid="ignore"):  # NaN for a negative variance, which matches nothing
            return self.weight.astype(np.float64) / np.sqrt(
                self.running_var.astype(np.float64) + epsilon
            )

    def shift(
        self, epsilon: float, bias: np.ndarray | float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the shift after a layer with `bias`, and the sum of its absolute terms.

        Both are in float64.
        """
        scale = self.scale(epsilon)
        terms = np.stack([self.bias, -scale * self.running_mean, scale * np.float64(bias)])
        return terms.sum(axis=0), np.abs(terms).sum(axis=0)


def computed(
    unmatched: Mapping[str, np.ndarray],
    stored: Sequence[StoredTensor],
    available: AvailableTensors,
    folds: Sequence[Fold],
) -> tuple[dict[str, Found], set[str]]:
    """Return the weights that are stored as the result of a fold, and the names of these results.

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
        free = [tensor for tensor in available.free(stored) if tensor.array.dtype.kind == "f"]
        sized = [tensor for tensor in free if tensor.array.size == values.factor.size]
        place: tuple[StoredTensor | None, float] | None = (None, 0.0)
        if (values.factor != 1).any():
            place = _nearest(values.factor, values.factor_terms, sized)
        rest = _added(values.shift, values.shift_terms, free)
        if place is None or rest is None:
            continue
        taken = {tensor.name: tensor for tensor, _ in (place, rest) if tensor is not None}
        for tensor in taken.values():
            available.take(tensor)
        results |= taken.keys()
        for name in wanted:
            result, error = place if name in fold.factors else rest
            found[name] = Found(match=Match.FOLDED, stored=result, how=fold.how, error=error)
    return found, results


def folded(
    weights: Mapping[str, np.ndarray],
    unmatched: Mapping[str, np.ndarray],
    stored: Sequence[StoredTensor],
    available: AvailableTensors,
) -> dict[str, Found]:
    """Return the weights of folded batch norms, and the kernels and biases folded with them.

    A batch norm is considered only if neither its mean nor its variance is stored. A fold leaves
    neither, so if only one of the tensors is missing, it was altered and not folded.
    """
    found: dict[str, Found] = {}
    free = [tensor for tensor in available.free(stored) if tensor.array.dtype.kind == "f"]
    for norm in batch_norms(weights):
        if not unmatched.keys() >= set(norm.names[2:]):
            continue
        # A negative variance, or a number near the largest of its dtype, results in NaN or
        # infinity, which equals nothing that is stored.
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            for epsilon in EPSILONS:
                left = {n: array for n, array in unmatched.items() if n not in found}
                # A scale of equal numbers fits along any axis, so try the usual axis first.
                explained = (
                    _kernel(norm, epsilon, left, free, usual=True)
                    or _alone(norm, epsilon, free)
                    or _kernel(norm, epsilon, left, free, usual=False)
                )
                if explained:
                    found.update(explained)
                    break
    for tensor in {p.stored.name: p.stored for p in found.values() if p.stored}.values():
        available.take(tensor)
    return found


def left_out(unmatched: Mapping[str, np.ndarray], free: Sequence[StoredTensor]) -> dict[str, Found]:
    """Return the biases of zeros whose addition a converter may have left out.

    `free` are stored tensors that no weight accounts for. A bias is not returned if one of them has
    its size, unless all elements of that tensor are equal.
    """
    sizes = {tensor.array.size for tensor in free if not _is_uniform(tensor)}
    return {
        name: Found(match=Match.FOLDED, stored=None, how=NOTHING_ADDED)
        for name, array in unmatched.items()
        if re.split(r"[./]", name)[-1] in BIASES and not array.any() and array.size not in sizes
    }


def batch_norms(weights: Mapping[str, np.ndarray]) -> Iterator[BatchNorm]:
    """Yield every layer that has a mean and a variance, by torch's or Keras' names."""
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
    """Find a kernel times the scale, along the usual axis or another, and the resulting bias."""
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
    """Yield the scale [C] along each fitting axis of a kernel, as (is the usual axis, scale).

    The usual output axis is the first in torch and the last in Keras. A transposed convolution has
    its output channels on the second axis in torch, and on the last but one in Keras. Keras'
    depthwise kernels [..., C, M] have C * M output channels.
    """
    count, last = len(scale), len(shape) - 1
    for axis, usual in ((last, keras), (0, not keras), (last - 1, False), (1, False)):
        if shape[axis] == count:
            along = scale.reshape([count if place == axis else 1 for place in range(len(shape))])
            yield usual or (keras and shape[last] == 1 and axis == last - 1), along
    if keras and shape[last] > 1 and shape[last] * shape[last - 1] == count:
        yield True, scale.reshape(shape[-2:])


def _alone(norm: BatchNorm, epsilon: float, free: Sequence[StoredTensor]) -> dict[str, Found]:
    """Find the scale and shift of a batch norm as tensors of their own."""
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
    """Return the result of `_nearest` for `offset`, or (None, 0.0) for zeros that are not stored.

    If something else is added in place of the zeros, it is a stored tensor that no weight accounts
    for.
    """
    found = _nearest(offset, terms, [t for t in free if t.array.size == offset.size])
    return (None, 0.0) if found is None and not offset.any() else found


def _is_uniform(tensor: StoredTensor) -> bool:
    """Return whether all elements are equal, as in the scale of a batch norm before training."""
    return tensor.array.size > 1 and bool((tensor.array == tensor.array.flat[0]).all())


def _nearest(
    values: np.ndarray, terms: np.ndarray, candidates: Sequence[StoredTensor]
) -> tuple[StoredTensor, float] | None:
    """Return the first tensor that equals `values` up to rounding, and the largest difference.

    All orders of the axes are tried. ROUNDING times `terms` bounds the difference; where `terms` is
    0, the values must be equal.
    """
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
    """Return whether the sums of values and of squares differ by no more than rounding allows.

    These sums do not depend on the order of the axes.
    """
    allowed = ROUNDING * terms
    size = np.abs(values)
    spare = values.size * 2.0**-52  # for the rounding of the sums themselves
    apart = abs(array.sum() - values.sum())
    squares = abs((array * array).sum() - (values * values).sum())
    return bool(
        apart <= allowed.sum() + spare * size.sum()
        and squares <= (allowed * (2 * size + allowed)).sum() + spare * (size * size).sum()
    )

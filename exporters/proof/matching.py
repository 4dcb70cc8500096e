"""Search for the model's tensors among the stored tensors of an artifact, as such or transformed.

Each function returns the matches of one kind, and uses no stored tensor that is already taken.
"""

from __future__ import annotations

import itertools
import operator
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from exporters.base import StoredTensor
from toolkit.core.files import digest_bytes

MOST_AXES = 6  # up to which all orders of the axes are tried
MOST_PARTS = 8  # of a weight that is split, or of a stored tensor that holds several weights


class Match(StrEnum):
    """Kind of match between a weight of the model and a stored tensor."""

    IDENTICAL = "identical"  # found bit for bit, and read by the graph
    TRANSPOSED = "transposed"  # bit for bit, with the axes in another order
    RESHAPED = "reshaped"  # bit for bit in the same order, in another shape
    CAST = "cast"  # rounded to another floating-point dtype
    QUANTISED = "quantised"  # stored as integers with a scale and a zero point
    REORDERED = "reordered"  # bit for bit, with the gates of a recurrent layer in another order
    FOLDED = "folded"  # in a constant that was recomputed and compared, or a bias of zeros left out
    ALTERED = "altered"  # its name has other values, or its values have another weight's name
    UNUSED = "unused"  # found bit for bit, but no live node reads it
    MISSING = "missing"  # not found
    EXTRA = "extra"  # stored and read, but not a weight of the model

    @property
    def explained(self) -> bool:
        """Whether the artifact has the weight."""
        return self in EXPLAINED


EXPLAINED = frozenset(
    {
        Match.IDENTICAL, Match.TRANSPOSED, Match.RESHAPED, Match.CAST, Match.QUANTISED,
        Match.REORDERED, Match.FOLDED,
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Found:
    """Place where a weight was found.

    `stored` is None for a weight that the computation does not need. `how` describes the match,
    `error` is the largest absolute difference from the model's values (0 if every bit is kept).
    """

    match: Match
    stored: StoredTensor | None
    how: str = ""
    error: float = 0.0


@dataclass(kw_only=True)
class AvailableTensors:
    """Stored tensors that are still available: each serves as many weights as it has readers."""

    left: dict[str, int]

    @classmethod
    def of(cls, stored: Sequence[StoredTensor]) -> AvailableTensors:
        return cls(left={tensor.name: max(1, len(tensor.readers)) for tensor in stored})

    def take(self, tensor: StoredTensor) -> None:
        self.left[tensor.name] -= 1

    def free(self, tensors: Sequence[StoredTensor]) -> list[StoredTensor]:
        return [tensor for tensor in tensors if self.left[tensor.name] > 0]


def tensor_digest(array: np.ndarray) -> str:
    """Return the SHA-256 of dtype, shape and little-endian bytes in C order."""
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    header = f"{array.dtype.name}{list(array.shape)}".encode()
    return digest_bytes(header, tensor_bits(little))


def identical(
    weights: Mapping[str, np.ndarray], stored: Sequence[StoredTensor], available: AvailableTensors
) -> dict[str, Found]:
    """Find weights with the same bits, dtype and shape.

    Names need not match, but a tensor of the same name is preferred, then one that names the layer.
    """
    by_digest: dict[str, list[StoredTensor]] = defaultdict(list)
    for tensor in stored:
        by_digest[tensor_digest(tensor.array)].append(tensor)
    candidates = {name: by_digest[tensor_digest(array)] for name, array in weights.items()}
    found: dict[str, Found] = {}
    # Match equal names for all weights first, so that no other weight of equal value takes them.
    for fits in (operator.eq, names_layer, lambda stored, weight: True):
        for name in sorted(candidates.keys() - found.keys()):
            free = [t for t in available.free(candidates[name]) if fits(t.name, name)]
            if free:
                # Prefer a tensor that the graph reads, then the one with the most room.
                best = max(free, key=lambda t: (bool(t.readers), available.left[t.name]))
                available.take(best)
                found[name] = Found(
                    match=Match.IDENTICAL if best.readers else Match.UNUSED, stored=best
                )
    return found


def rearranged(
    weights: Mapping[str, np.ndarray], stored: Sequence[StoredTensor], available: AvailableTensors
) -> dict[str, Found]:
    """Find weights with the same values in another order of the axes, another shape, or both."""
    return _by_values(weights, stored, available, dict.fromkeys(weights))


def cast(
    weights: Mapping[str, np.ndarray], stored: Sequence[StoredTensor], available: AvailableTensors
) -> dict[str, Found]:
    """Find weights rounded to a floating-point dtype that is stored, with the axes in any order."""
    found: dict[str, Found] = {}
    for dtype in sorted({t.array.dtype for t in stored if _is_float(t.array)}, key=str):
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = {
                name: array.astype(dtype)
                for name, array in weights.items()
                if name not in found and _is_float(array) and array.dtype != dtype
            }
        for name, place in _by_values(rounded, stored, available, weights).items():
            found[name] = place
    return found


def quantised(
    weights: Mapping[str, np.ndarray], stored: Sequence[StoredTensor], available: AvailableTensors
) -> dict[str, Found]:
    """Find weights stored as integers that dequantise to within half a step of the values."""
    found: dict[str, Found] = {}
    whole = [tensor for tensor in stored if tensor.quantisation is not None]
    for name, array in weights.items():
        for tensor in sorted(
            available.free(whole), key=lambda one: not names_layer(one.name, name)
        ):
            place = _restored(array, tensor)
            if place is not None:
                available.take(tensor)
                found[name] = place
                break
    return found


# Permutations of the gates of a recurrent layer, by their number. An LSTM's are i f g o in PyTorch
# and Keras, i o f g in ONNX, f i g o in OpenVINO; a GRU's are r z n in PyTorch, z r n elsewhere.
GATES: Mapping[int, Sequence[Sequence[int]]] = {
    4: ((0, 3, 1, 2), (0, 2, 3, 1), (1, 0, 2, 3), (2, 0, 3, 1), (1, 3, 0, 2)),
    3: ((1, 0, 2),),
}


def reordered(
    weights: Mapping[str, np.ndarray], stored: Sequence[StoredTensor], available: AvailableTensors
) -> dict[str, Found]:
    """Find weights of recurrent layers with the gates in another framework's order.

    ONNX has the biases of both products in one tensor, which ends in zeros for a layer with one
    bias.
    """
    weights = {name: array for name, array in weights.items() if array.ndim in (1, 2)}
    padded = {
        name: np.concatenate([array, np.zeros_like(array)])
        for name, array in weights.items()
        if array.ndim == 1
    }
    sizes = {(array.dtype, array.size) for array in (*weights.values(), *padded.values())}
    bags: dict[str, list[StoredTensor]] = defaultdict(list)
    for tensor in available.free(stored):
        if (tensor.array.dtype, tensor.array.size) in sizes:
            bags[_bag(tensor.array)].append(tensor)
    found: dict[str, Found] = {}
    for name, array in weights.items():
        candidates = list(bags.get(_bag(array), ())) if bags else []
        if bags and name in padded:
            candidates += bags.get(_bag(padded[name]), ())
        place = next(_in_gate_order(array, available.free(candidates)), None)
        if place is not None:
            order, tensor = place
            available.take(tensor)
            found[name] = Found(match=Match.REORDERED, stored=tensor, how=f"gates {list(order)}")
    return found


def stacked(
    weights: Mapping[str, np.ndarray], stored: Sequence[StoredTensor], available: AvailableTensors
) -> dict[str, Found]:
    """Find weights that are stacked in one stored tensor along its first axis.

    An example is the two directions of a recurrent layer. Each part of the tensor must be a weight.
    """
    found: dict[str, Found] = {}
    for tensor in available.free(stored):
        if tensor.array.ndim < 2 or not 2 <= len(tensor.array) <= MOST_PARTS:
            continue
        parts = [
            StoredTensor(name=str(place), array=part, readers=tensor.readers)
            for place, part in enumerate(tensor.array)
        ]
        own = AvailableTensors.of(parts)
        own.left = dict.fromkeys(own.left, 1)
        left = {name: array for name, array in weights.items() if name not in found}
        matched: dict[str, Found] = {}
        for way in (identical, rearranged, reordered):
            rest = {name: array for name, array in left.items() if name not in matched}
            matched |= way(rest, parts, own)
        if len(matched) < len(parts):
            continue
        available.take(tensor)
        for name, place in matched.items():
            assert place.stored is not None
            words = (f"part {place.stored.name} of {len(parts)}", *filter(None, (place.how,)))
            found[name] = replace(place, stored=tensor, how=", ".join(words))
    return found


def _in_gate_order(
    array: np.ndarray, candidates: Sequence[StoredTensor]
) -> Iterator[tuple[Sequence[int], StoredTensor]]:
    """Yield each candidate that is the array with its gates in another order, after that order.

    The candidate may end in as many zeros as the array has elements.
    """
    if not candidates:
        return
    for order, moved in _gate_orders(array):
        values = moved.reshape(-1)
        longer = np.concatenate([values, np.zeros_like(values)])
        for tensor in candidates:
            given = moved if tensor.array.size == array.size else longer
            if any(_same(one, tensor.array) for _, one in orders(given, tensor.array.shape)):
                yield order, tensor


def _gate_orders(array: np.ndarray) -> Iterator[tuple[Sequence[int], np.ndarray]]:
    for number, gate_orders in GATES.items():
        for axis in dict.fromkeys((0, array.ndim - 1)) if array.ndim else ():
            if array.shape[axis] % number == 0:
                gates = np.split(array, number, axis)
                for order in gate_orders:
                    yield order, np.concatenate([gates[place] for place in order], axis)


def copies(weights: Mapping[str, np.ndarray], stored: Sequence[StoredTensor]) -> set[str]:
    """Return the names of stored tensors that are a further copy of a weight or of a part of it.

    A part is one of at most MOST_PARTS equal parts along an axis. A copy has every bit, with the
    axes in any order, or is cast, or quantised with another step. Exporters write a tied weight
    once for each way in which it is read, and a bias in rows once for each row; quantisers write a
    bias once for each node.
    """
    weights = {
        **weights,
        **{
            f"{name}[{axis}, {place}]": part
            for name, array in weights.items()
            for axis, parts in _parts(array, {tensor.array.size for tensor in stored})
            for place, part in enumerate(parts)
        },
    }
    found = {
        tensor.name
        for tensor in stored
        if tensor.quantisation is not None
        and any(_restored(array, tensor) is not None for array in weights.values())
    }
    by_dtype: dict[np.dtype, list[StoredTensor]] = defaultdict(list)
    for tensor in stored:
        by_dtype[tensor.array.dtype].append(tensor)
    for dtype, tensors in by_dtype.items():
        sizes = {tensor.array.size for tensor in tensors}
        bags: dict[str, list[np.ndarray]] = defaultdict(list)
        for array in weights.values():
            if array.size in sizes and (array.dtype == dtype or _is_float(array)):
                with np.errstate(over="ignore", invalid="ignore"):
                    rounded = array.astype(dtype, copy=False)
                bags[_bag(rounded)].append(rounded)
        found |= {
            tensor.name
            for tensor in tensors
            for array in bags.get(_bag(tensor.array), ())
            if any(_same(moved, tensor.array) for _, moved in orders(array, tensor.array.shape))
        }
    return found


def _parts(array: np.ndarray, sizes: set[int]) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Yield each axis and the equal parts along it, if the parts have one of the sizes."""
    for axis, extent in enumerate(array.shape):
        for number in range(2, MOST_PARTS + 1):
            if extent % number == 0 and array.size // number in sizes:
                yield axis, np.split(array, number, axis)


def _restored(array: np.ndarray, tensor: StoredTensor) -> Found | None:
    """Return the match if a quantised tensor restores to the array within half a step, or None."""
    if tensor.quantisation is None or tensor.array.size != array.size:
        return None
    values, step = tensor.quantisation.restore(tensor.array)
    for order, moved in orders(array, values.shape):
        apart = np.abs(moved.astype(np.float64) - values)
        if (apart <= 0.5 * step * (1 + 1e-3)).all():
            return Found(
                match=Match.QUANTISED,
                stored=tensor,
                how=f"{tensor.array.dtype}, step {float(step.max()):.3g}{order}",
                error=float(apart.max(initial=0)),
            )
    return None


def _by_values(
    weights: Mapping[str, np.ndarray],
    stored: Sequence[StoredTensor],
    available: AvailableTensors,
    originals: Mapping[str, np.ndarray | None],
) -> dict[str, Found]:
    """Find stored tensors with exactly the values of a weight, in some order of its axes.

    If a weight has an array in `originals`, it is that array rounded, and the match is a cast.
    """
    bags: dict[str, list[StoredTensor]] = defaultdict(list)
    sizes = {(array.dtype, array.size) for array in weights.values()}
    for tensor in available.free(stored):
        if (tensor.array.dtype, tensor.array.size) in sizes:
            bags[_bag(tensor.array)].append(tensor)
    found: dict[str, Found] = {}
    for name, array in weights.items():
        candidates = sorted(
            available.free(bags.get(_bag(array), [])) if bags else [],
            key=lambda tensor: not names_layer(tensor.name, name),
        )
        for tensor in candidates:
            order = next(
                (o for o, moved in orders(array, tensor.array.shape) if _same(moved, tensor.array)),
                None,
            )
            if order is None:
                continue
            available.take(tensor)
            original = originals[name]
            match = Match.TRANSPOSED if "axes" in order else Match.RESHAPED
            error = 0.0
            if original is not None:
                match = Match.CAST
                order = f"{tensor.array.dtype}{order}"
                error = _largest_difference(original, array)
            found[name] = Found(match=match, stored=tensor, how=order.strip(", "), error=error)
            break
    return found


def orders(array: np.ndarray, shape: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the array in every order of its axes that has `shape`, reshaped if needed.

    Each comes after a description of the order. Orders that move only axes of extent 1 are a
    reshape. Nothing is yielded for more than MOST_AXES axes.
    """
    seen = set()
    for order in itertools.permutations(range(array.ndim)) if array.ndim <= MOST_AXES else ():
        real = tuple(axis for axis in order if array.shape[axis] != 1)
        if real in seen:
            continue
        seen.add(real)
        moved = array.transpose(order)
        words = f", axes {list(order)}" if list(real) != sorted(real) else ""
        if moved.shape != shape:
            moved = moved.reshape(shape)
            words += f", shape {list(shape)}"
        yield words, moved


def names_layer(stored: str, weight: str) -> bool:
    """Return whether the name of a stored tensor contains the layer of a weight."""
    layer = weight.rpartition(".")[0] or weight
    tokens = stored.replace("/", ".").replace(":", ".").replace("::", ".")
    return f".{layer}." in f".{tokens}."


def _bag(array: np.ndarray) -> str:
    """Return a digest that is equal for arrays of the same dtype and values in any order."""
    bits = array.flatten().view(f"u{array.dtype.itemsize}")
    bits.sort()
    return digest_bytes(array.dtype.name.encode(), tensor_bits(bits))


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two arrays are equal in shape and in every bit."""
    return one.shape == other.shape and tensor_bits(one) == tensor_bits(other)


def tensor_bits(array: np.ndarray) -> memoryview:
    """Return the bytes of an array in C order, without a copy if it already has that order."""
    if array.dtype.hasobject:
        return memoryview(array.tobytes())
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(np.nanmax(apart, initial=0.0))


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"

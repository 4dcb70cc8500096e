"""How a tensor of a model may lie in an artifact: as it is, or in another form of the same values.

Every way gives the matches that it can vouch for, and takes nothing that another way has taken.
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

MOST_AXES = 6  # of which all orders are tried
MOST_PARTS = 8  # of a weight, each written as a tensor


class Match(StrEnum):
    """What became of a tensor."""

    IDENTICAL = "identical"  # found bit for bit, and read by the graph
    TRANSPOSED = "transposed"  # every bit, with the axes in another order
    RESHAPED = "reshaped"  # every bit in the same order, in another shape
    CAST = "cast"  # rounded to another floating-point dtype
    QUANTISED = "quantised"  # as whole numbers with a scale and a zero point
    REORDERED = "reordered"  # every bit, with the gates of a recurrent layer in another order
    FOLDED = "folded"  # a batch norm's arithmetic done beforehand, recomputed here
    ALTERED = "altered"  # a tensor of its name is there with other bits, wherever its own went
    UNUSED = "unused"  # found bit for bit, but nothing that matters reads it
    MISSING = "missing"  # found nowhere
    EXTRA = "extra"  # stored and read, but no weight of the model

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
    """Where a weight lies, None for one that takes no part in what is computed; `how` says how in
    words, `error` is the largest absolute difference of a value to the model's (0 where every bit
    is kept)."""

    match: Match
    stored: StoredTensor | None
    how: str = ""
    error: float = 0.0


@dataclass(kw_only=True)
class Room:
    """The stored tensors that are not taken yet: each serves as many weights as it has readers."""

    left: dict[str, int]

    @classmethod
    def of(cls, stored: Sequence[StoredTensor]) -> Room:
        return cls(left={tensor.name: max(1, len(tensor.readers)) for tensor in stored})

    def take(self, tensor: StoredTensor) -> None:
        self.left[tensor.name] -= 1

    def free(self, tensors: Sequence[StoredTensor]) -> list[StoredTensor]:
        return [tensor for tensor in tensors if self.left[tensor.name] > 0]


def tensor_digest(array: np.ndarray) -> str:
    """SHA-256 over dtype, shape and little-endian C-order bytes."""
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    header = f"{array.dtype.name}{list(array.shape)}".encode()
    return digest_bytes(header, tensor_bits(little))


def identical(
    weights: Mapping[str, np.ndarray], stored: Sequence[StoredTensor], room: Room
) -> dict[str, Found]:
    """Every bit, dtype and shape; whichever the name, but one of the same name first, then one
    that names its layer."""
    by_digest: dict[str, list[StoredTensor]] = defaultdict(list)
    for tensor in stored:
        by_digest[tensor_digest(tensor.array)].append(tensor)
    candidates = {name: by_digest[tensor_digest(array)] for name, array in weights.items()}
    found: dict[str, Found] = {}
    # Its own first, over all weights, so that no other weight of equal value takes it.
    for fits in (operator.eq, names_layer, lambda stored, weight: True):
        for name in sorted(candidates.keys() - found.keys()):
            free = [t for t in room.free(candidates[name]) if fits(t.name, name)]
            if free:
                # Prefer one that the graph reads, then the one with most room.
                best = max(free, key=lambda t: (bool(t.readers), room.left[t.name]))
                room.take(best)
                found[name] = Found(
                    match=Match.IDENTICAL if best.readers else Match.UNUSED, stored=best
                )
    return found


def rearranged(
    weights: Mapping[str, np.ndarray], stored: Sequence[StoredTensor], room: Room
) -> dict[str, Found]:
    """The same values in another order of the axes, another shape, or both."""
    return _by_values(weights, stored, room, dict.fromkeys(weights))


def cast(
    weights: Mapping[str, np.ndarray], stored: Sequence[StoredTensor], room: Room
) -> dict[str, Found]:
    """Rounded to a floating-point dtype that is stored, the axes in any order."""
    found: dict[str, Found] = {}
    for dtype in sorted({t.array.dtype for t in stored if _is_float(t.array)}, key=str):
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = {
                name: array.astype(dtype)
                for name, array in weights.items()
                if name not in found and _is_float(array) and array.dtype != dtype
            }
        for name, place in _by_values(rounded, stored, room, weights).items():
            found[name] = place
    return found


def quantised(
    weights: Mapping[str, np.ndarray], stored: Sequence[StoredTensor], room: Room
) -> dict[str, Found]:
    """As whole numbers that come back, by their scale and zero point, within half a step."""
    found: dict[str, Found] = {}
    whole = [tensor for tensor in stored if tensor.quantisation is not None]
    for name, array in weights.items():
        for tensor in sorted(room.free(whole), key=lambda one: not names_layer(one.name, name)):
            place = _restored(array, tensor)
            if place is not None:
                room.take(tensor)
                found[name] = place
                break
    return found


# How the gates of a recurrent layer are moved, by their number. An LSTM's are i f g o in PyTorch
# and Keras, i o f g in ONNX, f i g o in OpenVINO; a GRU's are r z n in PyTorch, z r n elsewhere.
GATES: Mapping[int, Sequence[Sequence[int]]] = {
    4: ((0, 3, 1, 2), (0, 2, 3, 1), (1, 0, 2, 3), (2, 0, 3, 1), (1, 3, 0, 2)),
    3: ((1, 0, 2),),
}


def reordered(
    weights: Mapping[str, np.ndarray], stored: Sequence[StoredTensor], room: Room
) -> dict[str, Found]:
    """The weights of recurrent layers with their gates in another framework's order.

    ONNX has the biases of both products in one tensor: that of a layer with one bias ends in zeros.
    """
    weights = {name: array for name, array in weights.items() if array.ndim in (1, 2)}
    padded = {
        name: np.concatenate([array, np.zeros_like(array)])
        for name, array in weights.items()
        if array.ndim == 1
    }
    sizes = {(array.dtype, array.size) for array in (*weights.values(), *padded.values())}
    bags: dict[str, list[StoredTensor]] = defaultdict(list)
    for tensor in room.free(stored):
        if (tensor.array.dtype, tensor.array.size) in sizes:
            bags[_bag(tensor.array)].append(tensor)
    found: dict[str, Found] = {}
    for name, array in weights.items():
        candidates = list(bags.get(_bag(array), ())) if bags else []
        if bags and name in padded:
            candidates += bags.get(_bag(padded[name]), ())
        place = next(_in_gate_order(array, room.free(candidates)), None)
        if place is not None:
            order, tensor = place
            room.take(tensor)
            found[name] = Found(match=Match.REORDERED, stored=tensor, how=f"gates {list(order)}")
    return found


def stacked(
    weights: Mapping[str, np.ndarray], stored: Sequence[StoredTensor], room: Room
) -> dict[str, Found]:
    """Several weights that lie one after the other in one stored tensor, along its first axis: as
    the two directions of a recurrent layer. Each part of the tensor must be a weight."""
    found: dict[str, Found] = {}
    for tensor in room.free(stored):
        if tensor.array.ndim < 2 or not 2 <= len(tensor.array) <= MOST_PARTS:
            continue
        parts = [
            StoredTensor(name=str(place), array=part, readers=tensor.readers)
            for place, part in enumerate(tensor.array)
        ]
        own = Room.of(parts)
        own.left = dict.fromkeys(own.left, 1)
        left = {name: array for name, array in weights.items() if name not in found}
        matched: dict[str, Found] = {}
        for way in (identical, rearranged, reordered):
            rest = {name: array for name, array in left.items() if name not in matched}
            matched |= way(rest, parts, own)
        if len(matched) < len(parts):
            continue
        room.take(tensor)
        for name, place in matched.items():
            assert place.stored is not None
            words = (f"part {place.stored.name} of {len(parts)}", *filter(None, (place.how,)))
            found[name] = replace(place, stored=tensor, how=", ".join(words))
    return found


def _in_gate_order(
    array: np.ndarray, candidates: Sequence[StoredTensor]
) -> Iterator[tuple[Sequence[int], StoredTensor]]:
    """The stored tensors that are an array with its gates in another order, zeros behind it or
    not."""
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
    """Return the names of stored tensors that are a further copy of a weight, or of an equal part
    of one along an axis: with every bit, in any order of the axes, cast, or quantised with another
    step.

    Exporters write a tied weight once for each way in which it is read, a bias in rows once for
    each row, and quantisers a bias once for each node.
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
    """The parts of an array along each axis that have one of the sizes."""
    for axis, extent in enumerate(array.shape):
        for number in range(2, MOST_PARTS + 1):
            if extent % number == 0 and array.size // number in sizes:
                yield axis, np.split(array, number, axis)


def _restored(array: np.ndarray, tensor: StoredTensor) -> Found | None:
    """How a quantised tensor is this one; None where it is another."""
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
    room: Room,
    originals: Mapping[str, np.ndarray | None],
) -> dict[str, Found]:
    """Stored tensors with just the values of a weight, in an order that some order of its axes
    explains. With an original, the weight is its rounded form, and the match a cast."""
    bags: dict[str, list[StoredTensor]] = defaultdict(list)
    sizes = {(array.dtype, array.size) for array in weights.values()}
    for tensor in room.free(stored):
        if (tensor.array.dtype, tensor.array.size) in sizes:
            bags[_bag(tensor.array)].append(tensor)
    found: dict[str, Found] = {}
    for name, array in weights.items():
        candidates = sorted(
            room.free(bags.get(_bag(array), [])) if bags else [],
            key=lambda tensor: not names_layer(tensor.name, name),
        )
        for tensor in candidates:
            order = next(
                (o for o, moved in orders(array, tensor.array.shape) if _same(moved, tensor.array)),
                None,
            )
            if order is None:
                continue
            room.take(tensor)
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
    """The array in every order of its axes that, whole or reshaped, has `shape`; said in words.

    Orders that move only axes of extent 1 are a reshape.
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
    """Whether a stored name speaks of the layer that a weight is of."""
    layer = weight.rpartition(".")[0] or weight
    tokens = stored.replace("/", ".").replace(":", ".").replace("::", ".")
    return f".{layer}." in f".{tokens}."


def _bag(array: np.ndarray) -> str:
    """The same for arrays of the same values in whatever order."""
    bits = array.flatten().view(f"u{array.dtype.itemsize}")
    bits.sort()
    return digest_bytes(array.dtype.name.encode(), tensor_bits(bits))


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Every bit."""
    return one.shape == other.shape and tensor_bits(one) == tensor_bits(other)


def tensor_bits(array: np.ndarray) -> memoryview:
    """The bytes of an array in C order, without a copy of one that has that order."""
    if array.dtype.hasobject:
        return memoryview(array.tobytes())
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):  # infinity less infinity
        apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(np.nanmax(apart, initial=0.0))


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"

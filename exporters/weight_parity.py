"""Proof, weight by weight, that an exported file holds the model.

Tensors are matched by value, not by name: exporters rename, and a name proves nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from exporters.base import StoredTensor
from models.weights import COUNT
from toolkit.core.documents import Json
from toolkit.core.files import digest_bytes


class Match(StrEnum):
    """What became of a tensor."""

    IDENTICAL = "identical"  # found bit for bit, and read by the graph
    ALTERED = "altered"  # a tensor of its name is there with other bits, wherever its own went
    UNUSED = "unused"  # found bit for bit, but nothing that matters reads it
    MISSING = "missing"  # found nowhere
    EXTRA = "extra"  # stored and read, but no weight of the model


@dataclass(frozen=True, kw_only=True)
class TensorParity:
    """One tensor: its digest is over shape, dtype and little-endian bytes."""

    name: str
    match: Match
    shape: tuple[int, ...]
    dtype: str
    digest: str
    stored_as: str | None = None
    readers: tuple[str, ...] = ()

    def to_json(self) -> Json:
        return {
            "name": self.name,
            "match": self.match,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "digest": self.digest,
            "stored_as": self.stored_as,
            "readers": list(self.readers),
        }


@dataclass(frozen=True, kw_only=True)
class WeightParity:
    """Every weight of the model, then what else is stored that could be one."""

    tensors: tuple[TensorParity, ...]

    @property
    def proved(self) -> int:
        """How many tensors are found bit for bit."""
        return sum(tensor.match is Match.IDENTICAL for tensor in self.tensors)

    @property
    def total(self) -> int:
        """How many tensors the model has."""
        return sum(tensor.match is not Match.EXTRA for tensor in self.tensors)

    @property
    def passed(self) -> bool:
        return self.proved == len(self.tensors)

    def failures(self) -> list[TensorParity]:
        return [tensor for tensor in self.tensors if tensor.match is not Match.IDENTICAL]

    def to_json(self) -> Json:
        return {
            "passed": self.passed,
            "proved": self.proved,
            "total": self.total,
            "tensors": [tensor.to_json() for tensor in self.tensors],
        }


def compare(weights: Mapping[str, np.ndarray], stored: Sequence[StoredTensor]) -> WeightParity:
    """Finds each weight among the stored tensors, bit for bit.

    Among stored tensors of equal value the one of the same name is taken first. Weights of equal
    value may share one stored tensor (exporters merge them) if it has a reader for each. A stored
    tensor of more than one element that no weight accounts for, and that is not int64 or bool as
    shapes are, is extra, and fails the proof. The counts of batches of batch norms are left out:
    no output depends on them, and exporters drop them.
    """
    weights = {name: array for name, array in weights.items() if name.split(".")[-1] != COUNT}
    by_digest: dict[str, list[StoredTensor]] = defaultdict(list)
    for tensor in stored:
        by_digest[tensor_digest(tensor.array)].append(tensor)
    matched = _assign({name: by_digest[tensor_digest(array)] for name, array in weights.items()})
    by_name = {tensor.name: tensor for tensor in stored}
    found = [_weight(n, a, matched.get(n), by_name.get(n)) for n, a in weights.items()]
    accounted = {tensor.stored_as for tensor in found}
    extra = [
        _describe(tensor.name, tensor.array, Match.EXTRA, tensor)
        for tensor in stored
        if tensor.name not in accounted and tensor.readers and _could_be_a_weight(tensor.array)
    ]
    return WeightParity(tensors=(*found, *extra))


def _assign(candidates: Mapping[str, Sequence[StoredTensor]]) -> dict[str, StoredTensor]:
    """For each name one of its candidates; a tensor may serve as many names as it has readers."""
    room = {t.name: max(1, len(t.readers)) for found in candidates.values() for t in found}
    matched: dict[str, StoredTensor] = {}
    # Exact names first, over all weights, so that no other weight of equal value takes them.
    for exact in (True, False):
        for name in sorted(candidates.keys() - matched.keys()):
            free = [t for t in candidates[name] if room[t.name] and (not exact or t.name == name)]
            if free:
                # Prefer one that the graph reads, then the one with most room.
                matched[name] = max(free, key=lambda t: (bool(t.readers), room[t.name]))
                room[matched[name].name] -= 1
    return matched


def tensor_digest(array: np.ndarray) -> str:
    """SHA-256 over dtype, shape and little-endian C-order bytes."""
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    header = f"{array.dtype.name}{list(array.shape)}".encode()
    return digest_bytes(header + little.tobytes())


def _weight(
    name: str, array: np.ndarray, match: StoredTensor | None, namesake: StoredTensor | None
) -> TensorParity:
    if match is None:
        return _describe(name, array, Match.ALTERED if namesake else Match.MISSING, namesake)
    # Two weights of one shape that changed places are both found by value; the name gives it away.
    if namesake is not None and tensor_digest(namesake.array) != tensor_digest(array):
        return _describe(name, array, Match.ALTERED, match)
    return _describe(name, array, Match.IDENTICAL if match.readers else Match.UNUSED, match)


def _describe(
    name: str, array: np.ndarray, match: Match, stored: StoredTensor | None
) -> TensorParity:
    return TensorParity(
        name=name,
        match=match,
        shape=array.shape,
        dtype=array.dtype.name,
        digest=tensor_digest(array),
        stored_as=stored.name if stored else None,
        readers=stored.readers if stored else (),
    )


def _could_be_a_weight(array: np.ndarray) -> bool:
    """Anything but a scalar, and the shapes and indices that exporters write as int64 and bool."""
    return array.size > 1 and array.dtype not in (np.int64, np.bool_)

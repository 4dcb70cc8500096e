"""Proof, weight by weight, that an artifact holds the model.

Tensors are matched by value, not by name: exporters rename tensors, and a name proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from exporters.base import Fold, StoredTensor
from exporters.proof.folding import computed, folded, left_out
from exporters.proof.matching import (
    AvailableTensors,
    Found,
    Match,
    cast,
    copies,
    identical,
    names_layer,
    quantised,
    rearranged,
    reordered,
    stacked,
    tensor_digest,
)
from models.weights import COUNT
from toolkit.core.documents import Json

__all__ = ["Match", "TensorParity", "WeightParity", "compare", "could_be_a_weight"]


@dataclass(frozen=True, kw_only=True)
class TensorParity:
    """Match of one tensor.

    `digest` covers shape, dtype and little-endian bytes. `how` describes the transformation,
    `error` is the largest absolute difference from the model's values.
    """

    name: str
    match: Match
    shape: tuple[int, ...]
    dtype: str
    digest: str
    stored_as: str | None = None
    readers: tuple[str, ...] = ()
    how: str = ""
    error: float = 0.0

    def to_json(self) -> Json:
        return {
            "name": self.name,
            "match": self.match,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "digest": self.digest,
            "stored_as": self.stored_as,
            "readers": list(self.readers),
            "how": self.how,
            "error": self.error,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            **{
                **data,
                "match": Match(data["match"]),
                "shape": tuple(data["shape"]),
                "readers": tuple(data["readers"]),
            }
        )


@dataclass(frozen=True, kw_only=True)
class WeightParity:
    """Matches of all weights of the model, then of other stored tensors that could be weights."""

    tensors: tuple[TensorParity, ...]

    @property
    def explained(self) -> int:
        """Number of the model's tensors that the artifact has."""
        return sum(tensor.match.explained for tensor in self.tensors)

    @property
    def total(self) -> int:
        """Number of the model's tensors."""
        return sum(tensor.match is not Match.EXTRA for tensor in self.tensors)

    @property
    def passed(self) -> bool:
        return self.explained == len(self.tensors)

    def count(self, match: Match) -> int:
        return sum(tensor.match is match for tensor in self.tensors)

    def failures(self) -> list[TensorParity]:
        return [tensor for tensor in self.tensors if not tensor.match.explained]

    def summary(self) -> Json:
        """Return the verdict, and the number of tensors per kind of match."""
        return {
            "passed": self.passed,
            "explained": self.explained,
            "total": self.total,
            "counts": {match: count for match in Match if (count := self.count(match))},
        }

    def to_json(self) -> Json:
        return {**self.summary(), "tensors": [tensor.to_json() for tensor in self.tensors]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(tensors=tuple(map(TensorParity.from_json, data["tensors"])))


def compare(
    weights: Mapping[str, np.ndarray],
    stored: Sequence[StoredTensor],
    scales: Sequence[np.ndarray] = (),
    folds: Sequence[Fold] = (),
) -> WeightParity:
    """Match each weight with a stored tensor, and report the other tensors that could be weights.

    The kinds of match are tried in this order: bit for bit; in another order of axes, shape or
    gates; as a part of a tensor that holds several; rounded or quantised; as a part of what can be
    computed in advance according to the source's graph (`folds`); as a part of a batch norm that
    was folded; as a bias of zeros that is left out. Among stored tensors of equal value, the one of
    the same name is preferred. Weights of equal value may share one stored tensor, because
    exporters merge them, if it has a reader for each. A weight that is found under the name of
    another is altered: if two weights of one shape changed places, both are found by value.

    A stored tensor that could be a weight (see `could_be_a_weight`), and that no weight accounts
    for, is extra and fails the proof. Exceptions are further copies of a weight (see `copies`),
    `scales` (the scales and zero points that the source stores) bit for bit, and tensors whose
    elements are all equal, such as the bias of zeros that exporters add to a convolution without
    any. The batch counts of batch norms are ignored, because no output depends on them and
    exporters drop them.
    """
    weights = {name: array for name, array in weights.items() if name.split(".")[-1] != COUNT}
    live = [tensor for tensor in stored if tensor.readers]
    available = AvailableTensors.of(stored)
    found = identical(weights, stored, available)
    for way in (rearranged, reordered, stacked, cast, quantised):
        found |= way(_without(weights, found), live, available)
    sure = {name: place for name, place in found.items() if not _by_chance(name, weights, place)}
    of_folds, results = computed(_without(weights, sure), live, available, folds)
    found |= of_folds
    sure |= of_folds
    found |= folded(weights, _without(weights, sure), live, available)
    others = [tensor for tensor in available.free(live) if could_be_a_weight(tensor)]
    found |= left_out(_without(weights, found), others)
    by_name = {tensor.name: tensor for tensor in stored}
    tensors = [
        _weight(name, array, found.get(name), by_name.get(name), weights)
        for name, array in weights.items()
    ]
    accounted = {tensor.stored_as for tensor in tensors} | results
    known = {tensor_digest(array) for array in scales}
    unknown = [
        tensor
        for tensor in live
        if tensor.name not in accounted
        and could_be_a_weight(tensor)
        and tensor_digest(tensor.array) not in known
        and not (tensor.array == tensor.array.flat[0]).all()
    ]
    further = copies(weights, unknown)
    extra = [
        _describe(tensor.name, tensor.array, Match.EXTRA, tensor)
        for tensor in unknown
        if tensor.name not in further
    ]
    return WeightParity(tensors=(*tensors, *extra))


def _without(
    weights: Mapping[str, np.ndarray], found: Mapping[str, Found]
) -> dict[str, np.ndarray]:
    return {name: array for name, array in weights.items() if name not in found}


def _by_chance(name: str, weights: Mapping[str, np.ndarray], place: Found) -> bool:
    """Return whether a weight may have been folded although it was found.

    This is so if nothing reads the tensor that was found, or if all elements of the weight are
    equal, such as zeros, and the tensor has neither its name nor that of its layer.
    """
    stored, array = place.stored, weights[name]
    own = stored is not None and (stored.name == name or names_layer(stored.name, name))
    uniform = array.size > 1 and bool((array == array.flat[0]).all())
    return place.match is Match.UNUSED or (uniform and not own)


def _weight(
    name: str,
    array: np.ndarray,
    found: Found | None,
    namesake: StoredTensor | None,
    weights: Mapping[str, np.ndarray],
) -> TensorParity:
    if found is None:
        return _describe(name, array, Match.ALTERED if namesake else Match.MISSING, namesake)
    match, place = found.match, found.stored
    if (
        place
        and match is not Match.FOLDED
        and _stands_for_another(name, array, place, namesake, weights)
    ):
        match = Match.ALTERED
    described = _describe(name, array, match, place)
    return replace(described, how=found.how, error=found.error)


def _stands_for_another(
    name: str,
    array: np.ndarray,
    found: StoredTensor,
    namesake: StoredTensor | None,
    weights: Mapping[str, np.ndarray],
) -> bool:
    """Return whether the tensor that was found has the name of another weight with other values."""
    if namesake is not None:
        own = tensor_digest(namesake.array) == tensor_digest(found.array)
        return namesake.name != found.name and not own
    if names_layer(found.name, name):
        return False
    digest = tensor_digest(array)
    return any(
        names_layer(found.name, other)
        and weights[other].shape == array.shape
        and tensor_digest(weights[other]) != digest
        for other in weights
        if other != name
    )


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


def could_be_a_weight(tensor: StoredTensor) -> bool:
    """Return whether a stored tensor holds values that a model computes with.

    These are floating-point numbers, quantised ones, and those of 8 bits or fewer, in tensors of
    more than one element. Exporters write shapes, axes, positions, indices and masks as wider
    integers and booleans; an altered tensor of the model with such a dtype is recognised by its
    name. Constants that are only operands such as Resize's scales have no reader.
    """
    dtype = tensor.array.dtype
    if tensor.array.size < 2 or dtype.kind in "OSU":
        return False
    if tensor.quantisation is not None or dtype.kind not in "iub":
        return True
    return dtype.itemsize == 1 and dtype != np.bool_

"""Closeness of outputs to a reference that they cannot equal, such as INT8 to float outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from toolkit.core.documents import Json


@dataclass(frozen=True, kw_only=True)
class Closeness:
    """Closeness of one output to its reference, over all elements of `rows` samples.

    `sqnr_db` is the power of the reference divided by that of the difference, in decibels; it is
    infinite if both are equal. `cosine` is that of the angle between them, None if one is 0
    everywhere. `agreement` is the fraction of samples with the same top-1 class, None for an output
    without classes.
    """

    rows: int
    sqnr_db: float
    cosine: float | None
    agreement: float | None

    def to_json(self) -> Json:
        return {
            "rows": self.rows,
            "identical": self.sqnr_db == math.inf,
            "sqnr_db": self.sqnr_db,
            "cosine": self.cosine,
            "agreement": self.agreement,
        }


@final
class Comparison:
    """Accumulator for one output, batch by batch; it keeps float64 sums instead of batches."""

    def __init__(self) -> None:
        self._rows = self._equal = 0
        self._signal = self._noise = self._product = self._power = 0.0
        self._classes = True

    def add(self, got: np.ndarray, reference: np.ndarray) -> None:
        """Add a batch: two arrays [N, ...] of the same shape."""
        a, b = got.astype(np.float64), reference.astype(np.float64)
        self._rows += len(b) if b.ndim else 1
        self._signal += float((b * b).sum())
        self._noise += float(((a - b) ** 2).sum())
        self._product += float((a * b).sum())
        self._power += float((a * a).sum())
        self._classes &= b.ndim == 2 and b.shape[1] > 1
        if self._classes:
            self._equal += int((a.argmax(axis=1) == b.argmax(axis=1)).sum())

    def result(self) -> Closeness:
        size = math.sqrt(self._signal) * math.sqrt(self._power)
        return Closeness(
            rows=self._rows,
            sqnr_db=_decibels(self._signal, self._noise),
            cosine=self._product / size if size else None,
            agreement=self._equal / self._rows if self._classes and self._rows else None,
        )


def _decibels(signal: float, noise: float) -> float:
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf

"""Histogram of fixed size for values that arrive batch by batch."""

from __future__ import annotations

import math
from typing import final

import numpy as np

from toolkit.core.errors import UsageError

BINS = 4096  # on each side of 0; the side with the larger values uses at least half of them
LOWEST = -100  # exponent of the narrowest histogram, whose values are practically 0


@final
class Histogram:
    """Counts of values from -2**k to 2**k, in bins of equal width whose edges include 0.

    If a value does not fit, k grows and neighbouring bins are merged. Every width is a power of
    two, so nothing is rounded, and the counts do not depend on the batches or the order of the
    values. `count`, `least` and `greatest` are exact.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(2 * BINS, np.int64)
        self.least = math.inf
        self.greatest = -math.inf
        self._exponent = LOWEST

    @property
    def count(self) -> int:
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self._exponent) / BINS

    @property
    def centres(self) -> np.ndarray:
        """Centre of each bin [2 * BINS], in float64."""
        return (np.arange(-BINS, BINS) + 0.5) * self.width

    def magnitudes(self) -> np.ndarray:
        """Return the counts [BINS] of the absolute values, from 0 up."""
        return np.asarray(self.counts[BINS:] + self.counts[:BINS][::-1])

    def add(self, array: np.ndarray) -> None:
        """Count floating-point values. Raise UsageError if any is NaN or infinite."""
        if not array.size:
            return
        values = array.reshape(-1).astype(np.promote_types(array.dtype, np.float32), copy=False)
        least, greatest = float(values.min()), float(values.max())
        bound = max(-least, greatest)
        if not math.isfinite(bound):
            raise UsageError(
                f"Got {int((~np.isfinite(values)).sum())} values of {values.size} that are NaN or "
                "infinite.",
                hint="Look for them in the rows, or run the float model on them: no range holds "
                "them.",
            )
        self.least, self.greatest = min(self.least, least), max(self.greatest, greatest)
        if bound >= math.ldexp(1.0, self._exponent):
            self._widen(math.frexp(bound)[1])
        places = np.floor(values * values.dtype.type(1 / self.width)).astype(np.int32)
        places -= (places == 0) & (values < 0)  # negative products that underflow
        places += BINS
        self.counts += np.bincount(places, minlength=2 * BINS)

    def _widen(self, exponent: int) -> None:
        places = (np.arange(-BINS, BINS) >> min(exponent - self._exponent, 62)) + BINS
        merged = np.zeros_like(self.counts)
        np.add.at(merged, places, self.counts)
        self.counts, self._exponent = merged, exponent

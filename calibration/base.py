"""Interface of calibration methods, and the ranges and 8-bit grids that they work with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from calibration.histogram import Histogram
from toolkit.core.options import Option


@dataclass(frozen=True, kw_only=True)
class Range:
    """Range of values from `low` to `high`, which includes 0; values outside are clipped."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Integers that represent quantised values: -127 to 127 around 0 if `symmetric`, else 0 to 255.

    The zero point of 0 to 255 follows from the range.
    """

    symmetric: bool

    @property
    def steps(self) -> int:
        return 254 if self.symmetric else 255

    def quantised(self, values: np.ndarray, chosen: Range) -> np.ndarray:
        """Return `values` quantised in the range `chosen` and dequantised, in float64 as `values`.

        Scale and zero point are those that onnxruntime.quantization sets.
        """
        if self.symmetric:
            bound = max(-chosen.low, chosen.high)
            step, zero, least = bound / 127, 0.0, -127.0
        else:
            step, least = (chosen.high - chosen.low) / 255, 0.0
            zero = float(np.rint(-chosen.low / step)) if step else 0.0
        if not step:
            return np.zeros_like(values)
        numbers = np.clip(np.rint(values / step) + zero, least, least + self.steps)
        return np.asarray((numbers - zero) * step)


class Method(ABC):
    """Calibration method: chooses the range to quantise a tensor in from the tensor's histogram.

    If the method takes a number, as in `percentile=99.9`, `option` describes it, and `number` is
    set before the first call of `range_of`.
    """

    option: ClassVar[Option | None] = None
    number: float = 0.0

    @abstractmethod
    def range_of(self, histogram: Histogram, grid: Grid) -> Range:
        """Return a range within that of the values, which is extended to include 0."""


def within(histogram: Histogram, bound: float) -> Range:
    """Return the range from -bound to bound, limited to the values of the histogram and 0."""
    return Range(
        low=max(-bound, min(histogram.least, 0.0)), high=min(bound, max(histogram.greatest, 0.0))
    )

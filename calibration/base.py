"""What a calibration method is, and the whole numbers that it chooses a range for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from calibration.histogram import Histogram
from toolkit.core.options import Option


@dataclass(frozen=True, kw_only=True)
class Range:
    """The values from `low` to `high`, 0 among them; what lies outside is clipped."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The whole numbers that stand for values, 255 steps from the least to the greatest: from 0,
    with the zero point that suits the range; or, where it is symmetric, -127 to 127 around 0."""

    symmetric: bool

    @property
    def steps(self) -> int:
        return 254 if self.symmetric else 255

    def quantised(self, values: np.ndarray, chosen: Range) -> np.ndarray:
        """What `values` become in `chosen`, as onnxruntime.quantization sets scale and zero point.

        float64, as are `values`.
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
    """Turns the histogram of a tensor into the range that it is quantised in.

    Where it takes a number, as in `percentile=99.9`, `option` says which, and `number` is set
    before it is asked.
    """

    option: ClassVar[Option | None] = None
    number: float = 0.0

    @abstractmethod
    def range_of(self, histogram: Histogram, grid: Grid) -> Range:
        """A range within the least and the greatest value and 0."""


def within(histogram: Histogram, bound: float) -> Range:
    """From -bound to bound, but no further than the values go."""
    return Range(
        low=max(-bound, min(histogram.least, 0.0)), high=min(bound, max(histogram.greatest, 0.0))
    )

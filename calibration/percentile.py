"""Calibration by a percentile of the absolute values."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from calibration.base import Grid, Method, Range, within
from calibration.histogram import Histogram
from toolkit.core.options import Option


@final
class Percentile(Method):
    """Smallest bound that at least `number` percent of the absolute values stay within.

    The bound is rounded up to the edge of a bin.
    """

    option: ClassVar[Option | None] = Option(
        default=99.99, help="The share of values that is kept, in percent.", least=50, most=100
    )
    number: float = 99.99

    def range_of(self, histogram: Histogram, grid: Grid) -> Range:
        reached = np.cumsum(histogram.magnitudes())
        place = int(np.searchsorted(reached, reached[-1] * (self.number / 100)))
        return within(histogram, (place + 1) * histogram.width)

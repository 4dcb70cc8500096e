"""All values but the largest few."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from calibration.base import Grid, Method, Range, within
from calibration.histogram import Histogram
from toolkit.core.options import Option


@final
class Percentile(Method):
    """Up to the least bound that so many percent of the absolute values do not exceed, rounded up
    to the edge of a bin."""

    option: ClassVar[Option | None] = Option(
        default=99.99, help="The share of values that is kept, in percent.", least=50, most=100
    )
    number: float = 99.99

    def range_of(self, histogram: Histogram, grid: Grid) -> Range:
        reached = np.cumsum(histogram.magnitudes())
        place = int(np.searchsorted(reached, reached[-1] * (self.number / 100)))
        return within(histogram, (place + 1) * histogram.width)

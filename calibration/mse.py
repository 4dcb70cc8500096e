"""The range with the least squared error."""

from __future__ import annotations

from typing import final

import numpy as np

from calibration.base import Grid, Method, Range, within
from calibration.histogram import Histogram

SHARES = np.geomspace(1, 1 / 512, 91)  # of the least and of the greatest value: 7 % from one on
ROUNDS = 2


@final
class LeastSquares(Method):
    """The range in which quantised values are off by least, in the mean of their squares: of all
    shares of the greatest value with the least, then of the least with the best of these, twice;
    where the numbers are symmetric, of all shares of both together."""

    def range_of(self, histogram: Histogram, grid: Grid) -> Range:
        filled = histogram.counts > 0
        values, counts = histogram.centres[filled], histogram.counts[filled]

        def error(chosen: Range) -> float:
            return float((counts * (grid.quantised(values, chosen) - values) ** 2).sum())

        widest = within(histogram, float("inf"))
        if grid.symmetric:
            bound = max(-widest.low, widest.high)
            return min((within(histogram, bound * share) for share in SHARES), key=error)
        best = widest
        for _ in range(ROUNDS):
            highs = [Range(low=best.low, high=widest.high * share) for share in SHARES]
            best = min([best, *highs], key=error)
            lows = [Range(low=widest.low * share, high=best.high) for share in SHARES]
            best = min([best, *lows], key=error)
        return best

"""Calibration by the smallest mean squared error."""

from __future__ import annotations

from typing import final

import numpy as np

from calibration.base import Grid, Method, Range, within
from calibration.histogram import Histogram

SHARES = np.geomspace(1, 1 / 512, 91)  # candidate fractions of a bound, in steps of 7 %
ROUNDS = 2


@final
class LeastSquares(Method):
    """Range with the smallest mean squared error of the quantised values.

    On a symmetric grid, the search scales both bounds together by each of SHARES. Otherwise it
    alternates, ROUNDS times: it scales the upper bound, then the lower bound with the best upper
    bound.
    """

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

"""Calibration by the smallest and largest value."""

from __future__ import annotations

from typing import final

from calibration.base import Grid, Method, Range, within
from calibration.histogram import Histogram


@final
class MinMax(Method):
    """Range from the smallest to the largest value: no clipping, but one outlier widens it."""

    def range_of(self, histogram: Histogram, grid: Grid) -> Range:
        return within(histogram, float("inf"))

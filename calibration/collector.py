"""A histogram for each tensor that a model computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np

from calibration.base import Grid, Method, Range
from calibration.histogram import Histogram
from toolkit.core.errors import UsageError


@final
class Collector:
    """Takes what a model gives, batch by batch, and keeps histograms alone."""

    def __init__(self) -> None:
        self.histograms: dict[str, Histogram] = {}
        self.infinite: set[str] = set()

    def add(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Counts those in floating point; of a tensor with infinite values, such as a mask, the
        finite ones. Raises UsageError, which names the first tensor with NaN in it, or without
        any finite value."""
        for name, array in tensors.items():
            if array.dtype.kind != "f":
                continue
            infinite = np.isinf(array)
            if infinite.any() and not infinite.all():
                self.infinite.add(name)
                array = array[~infinite]
            try:
                self.histograms.setdefault(name, Histogram()).add(array)
            except UsageError as error:
                raise UsageError(
                    f"The float model cannot be calibrated: {name}: {error.problem}",
                    hint=error.hint,
                ) from error

    def ranges(self, method: Method, grid: Grid) -> dict[str, Range]:
        return {name: method.range_of(one, grid) for name, one in self.histograms.items()}

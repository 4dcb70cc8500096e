"""Collector of a histogram for each tensor that a model computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np

from calibration.base import Grid, Method, Range
from calibration.histogram import Histogram
from toolkit.core.errors import UsageError


@final
class Collector:
    """Histograms of a model's tensors, filled batch by batch; the values are not kept.

    `infinite` has the names of tensors with both finite and infinite values.
    """

    def __init__(self) -> None:
        self.histograms: dict[str, Histogram] = {}
        self.infinite: set[str] = set()

    def add(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Count the values of NumPy floating-point tensors; skip infinite ones, as in a mask.

        Raise UsageError if a tensor has NaN or no finite value; the error names the first such
        tensor.
        """
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

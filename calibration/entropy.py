"""The bound at which the quantised distribution tells least apart from the values'."""

from __future__ import annotations

from typing import final

import numpy as np

from calibration.base import Grid, Method, Range, within
from calibration.histogram import Histogram

STRIDE = 8  # bins from one bound that is tried to the next


@final
class Entropy(Method):
    """The bound with the least Kullback-Leibler divergence, as TensorRT's calibrator finds it.

    For each bound, the absolute values below it with all others in the last bin are one
    distribution; the other is what is left when its bins become as many as there are levels, each
    shared out evenly among those that were not empty. Zeros, which are kept at any bound, are
    counted as the bin beside them. Source: Migacz, 8-bit Inference with TensorRT, GTC 2017;
    onnxruntime.quantization's EntropyCalibrater and NVIDIA's pytorch-quantization do the same.
    """

    def range_of(self, histogram: Histogram, grid: Grid) -> Range:
        counts = histogram.magnitudes().astype(np.float64)
        counts[0] = counts[1]
        used = int(np.flatnonzero(counts).max(initial=0)) + 1
        one_sided = histogram.least >= 0 or histogram.greatest <= 0
        levels = 256 if one_sided and not grid.symmetric else 128
        bounds = [*range(levels, used, STRIDE), used]
        apart = [_divergence(counts, bound, levels) for bound in bounds]
        best = bounds[int(np.argmin(apart))]
        return within(histogram, float("inf") if best == used else best * histogram.width)


def _divergence(counts: np.ndarray, bound: int, levels: int) -> float:
    """Infinite where the last bin holds nothing but what was beyond it."""
    kept, total = counts[:bound], counts.sum()
    inside = kept.sum()
    if not inside or (not kept[-1] and inside < total):
        return float("inf")
    filled = kept > 0
    level = np.arange(bound) * min(levels, bound) // bound
    mass = np.bincount(level, weights=kept)
    share = np.bincount(level, weights=filled)
    coarse = (mass / np.maximum(share, 1))[level][filled] / inside
    exact = kept[filled] / total
    exact[-1] += (total - inside) / total
    return float((exact * np.log(exact / coarse)).sum())

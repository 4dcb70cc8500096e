"""Calibration by entropy: minimise the divergence of the quantised distribution."""

from __future__ import annotations

from typing import final

import numpy as np

from calibration.base import Grid, Method, Range, within
from calibration.histogram import Histogram

STRIDE = 8  # bins between candidate bounds


@final
class Entropy(Method):
    """Bound with the smallest Kullback-Leibler divergence, as TensorRT's calibrator finds it.

    For each candidate bound, the reference distribution has the absolute values below the bound,
    and all larger ones in its last bin. The quantised distribution merges the bins below the bound
    into the levels that the grid has for absolute values, and spreads each level evenly over its
    non-empty bins. The bin at zero gets the count of its neighbour, because zeros are exact at any
    bound. Source: Migacz, 8-bit Inference with TensorRT, GTC 2017; onnxruntime.quantization's
    EntropyCalibrater and NVIDIA's pytorch-quantization do the same.
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
    """Return the divergence at a bound; infinite if the last bin has only values beyond it."""
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

"""Bootstrap of the difference between two models' mean squared errors on the same samples.

Samples are drawn with replacement, the same ones for both models, so that what makes a sample hard
for both cancels. The interval is the bias-corrected and accelerated one (Efron, Better bootstrap
confidence intervals, Journal of the American Statistical Association 82, 1987; Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, section 14.3), since squared errors are skewed.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from toolkit.core.documents import Json

RESAMPLES = 4000
SEED = 0
HELD = 2_000_000  # draws in memory at once


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Value with its confidence interval."""

    value: float
    interval: tuple[float, float]

    def to_json(self) -> Json:
        return {"value": self.value, "ci95": list(self.interval)}


@dataclass(frozen=True, kw_only=True)
class ErrorDifference:
    """B's mean squared error minus A's, absolute and in per cent of A's."""

    absolute: Estimate
    percent: Estimate


def bootstrap_difference(
    a_errors: np.ndarray, b_errors: np.ndarray, confidence: float
) -> ErrorDifference:
    """Return the difference and its intervals, from the squared errors [N] of the samples.

    A's errors must not all be 0. Every call makes the same draws.
    """
    a, b = (errors.astype(np.float64) for errors in (a_errors, b_errors))
    rows = len(a)
    sums = np.array([a.sum(), b.sum()])
    drawn = _resampled_sums(a, b)
    left_out = np.stack([sums[0] - a, sums[1] - b])
    return ErrorDifference(
        absolute=_estimate(
            float(sums[1] - sums[0]) / rows,
            (drawn[1] - drawn[0]) / rows,
            (left_out[1] - left_out[0]) / max(rows - 1, 1),
            confidence,
        ),
        percent=_estimate(_percent(sums).item(), _percent(drawn), _percent(left_out), confidence),
    )


def _percent(sums: np.ndarray) -> np.ndarray:
    """Return by how many per cent B's sum exceeds A's, for [A's, B's]; 0 where both are 0."""
    a, b = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((a == 0) & (b == 0), 0.0, 100 * (b - a) / a)


def _resampled_sums(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the sums [2, RESAMPLES] of A's and B's errors over N samples, with replacement."""
    rng = np.random.default_rng(SEED)
    rows, found = len(a), np.empty((2, RESAMPLES))
    step = max(1, HELD // rows)
    for start in range(0, RESAMPLES, step):
        count = min(step, RESAMPLES - start)
        picks = rng.integers(0, rows, (count, rows), dtype=np.int32)
        found[:, start : start + count] = a[picks].sum(axis=1), b[picks].sum(axis=1)
    return found


def _estimate(value: float, drawn: np.ndarray, left_out: np.ndarray, confidence: float) -> Estimate:
    """Return `value` with its bias-corrected and accelerated interval.

    `drawn` are the values of the resamples, `left_out` those with one sample left out each.
    """
    drawn = drawn[np.isfinite(drawn)]
    normal = NormalDist()
    below = ((drawn < value).sum() + (drawn == value).sum() / 2) / len(drawn)
    bias = normal.inv_cdf(float(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn))))
    left_out = left_out[np.isfinite(left_out)]
    away = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    spread = float(np.square(away).sum())
    skew = float((away**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    tails = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        shifted = bias + normal.inv_cdf(tail)
        tails.append(normal.cdf(bias + shifted / max(1 - skew * shifted, 1e-9)))
    low, high = np.quantile(drawn, tails)
    return Estimate(value=value, interval=(float(low), float(high)))

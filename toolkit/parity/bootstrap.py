"""The mean squared error of one model against that of another, on the same rows.

Rows are drawn with replacement, those of both models together, so that what makes a row hard for
both cancels. The interval is the bias-corrected and accelerated one (Efron, Better bootstrap
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
HELD = 2_000_000  # draws at once


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its interval."""

    value: float
    interval: tuple[float, float]

    def to_json(self) -> Json:
        return {"value": self.value, "ci95": list(self.interval)}


@dataclass(frozen=True, kw_only=True)
class ErrorDifference:
    """B's mean squared error less A's: as it is, and in per cent of A's."""

    absolute: Estimate
    percent: Estimate


def bootstrap_difference(
    a_errors: np.ndarray, b_errors: np.ndarray, confidence: float
) -> ErrorDifference:
    """From the squared errors [N] of each row; A's are not all 0. The draws are the same at every
    call."""
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
    """Of [A's, B's]: by how much B's is more than A's; 0 where both are 0."""
    a, b = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((a == 0) & (b == 0), 0.0, 100 * (b - a) / a)


def _resampled_sums(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[2, RESAMPLES]: the sums over as many rows as there are, drawn with replacement."""
    rng = np.random.default_rng(SEED)
    rows, found = len(a), np.empty((2, RESAMPLES))
    step = max(1, HELD // rows)
    for start in range(0, RESAMPLES, step):
        count = min(step, RESAMPLES - start)
        picks = rng.integers(0, rows, (count, rows), dtype=np.int32)
        found[:, start : start + count] = a[picks].sum(axis=1), b[picks].sum(axis=1)
    return found


def _estimate(value: float, drawn: np.ndarray, left_out: np.ndarray, confidence: float) -> Estimate:
    """The bias-corrected and accelerated interval: `drawn` are the bootstrap's values, `left_out`
    those without one row each."""
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

"""Median, percentiles, intervals by bootstrap, ratios and verdicts.

Samples of one block are alike (they share the machine's state), so the bootstrap draws whole
blocks, not samples (a block bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap,
1993, chapter 8). With fewer blocks than MINIMUM_BLOCKS it draws samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

RESAMPLES = 1000
MINIMUM_BLOCKS = 5
CONFIDENCE = 0.95
SAME_BAND = 0.01
SKETCH = 200  # samples of a block that enter the bootstrap
MATRIX_ELEMENTS = 4_000_000  # of a bootstrap, held at once

# The fewest samples for which a percentile means something: MLPerf's early-stopping criterion at
# confidence 0.99 (docs/measuring.md).
FEWEST_SAMPLES = {50.0: 11, 90.0: 64, 95.0: 130, 99.0: 662, 99.9: 6636}

Interval = tuple[float, float]


class Verdict(StrEnum):
    """How a row compares with the baseline."""

    FASTER = "FASTER"  # the whole interval is below the band of sameness
    SLOWER = "SLOWER"  # the whole interval is above it
    SAME = "SAME"  # the whole interval is inside it
    UNCLEAR = "UNCLEAR"  # anything else


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Time of a row over time of the baseline: below 1 is faster."""

    value: float
    interval: Interval

    @property
    def verdict(self) -> Verdict:
        low, high = self.interval
        if high < 1 - SAME_BAND:
            return Verdict.FASTER
        if low > 1 + SAME_BAND:
            return Verdict.SLOWER
        if low >= 1 - SAME_BAND and high <= 1 + SAME_BAND:
            return Verdict.SAME
        return Verdict.UNCLEAR


def percentile(samples: np.ndarray, q: float) -> float | None:
    """The q-th percentile by linear interpolation; None with too few samples for it."""
    return float(np.percentile(samples, q)) if len(samples) >= FEWEST_SAMPLES[q] else None


def median_interval(blocks: Sequence[np.ndarray]) -> Interval | None:
    """The 95 % interval of the median of all samples; None with too few samples for a median."""
    samples = np.concatenate(blocks) if blocks else np.empty(0)
    if len(samples) < FEWEST_SAMPLES[50.0]:
        return None
    return _interval(_bootstrap_medians(blocks))


def ratio(row: Sequence[np.ndarray], baseline: Sequence[np.ndarray]) -> Ratio | None:
    """The ratio of the medians of two rows measured in turn; None with too few samples.

    `row[i]` and `baseline[i]` are blocks of the same round: the value is the median of the rounds'
    ratios, so that a drift of the machine cancels. With fewer rounds than MINIMUM_BLOCKS it is the
    ratio of the two medians, each drawn on its own.
    """
    if min(sum(map(len, row)), sum(map(len, baseline))) < FEWEST_SAMPLES[50.0]:
        return None
    rounds = min(len(row), len(baseline))
    if rounds >= MINIMUM_BLOCKS:
        ratios = np.array(
            [np.median(a) / np.median(b) for a, b in zip(row, baseline, strict=False)]
        )
        value = float(np.median(ratios))
        draws = np.median(_rng().choice(ratios, (RESAMPLES, rounds)), axis=1)
    else:
        value = float(np.median(np.concatenate(row)) / np.median(np.concatenate(baseline)))
        draws = _bootstrap_medians(row, seed=1) / _bootstrap_medians(baseline, seed=2)
    return Ratio(value=value, interval=_interval(draws)) if np.isfinite(value) else None


def relative_half_width(values: Sequence[float] | np.ndarray) -> float:
    """Half the 95 % interval of the median of one value a round, over that median.

    The quick form that the stop rule asks for after each round; infinity below MINIMUM_BLOCKS.
    """
    if len(values) < MINIMUM_BLOCKS:
        return float("inf")
    rounds = np.asarray(values, float)
    draws = np.median(_rng().choice(rounds, (RESAMPLES, len(rounds))), axis=1)
    low, high = _interval(draws)
    centre = float(np.median(rounds))
    return (high - low) / 2 / centre if centre > 0 else float("inf")


def _bootstrap_medians(blocks: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """Medians of RESAMPLES pooled samples, each from blocks drawn with replacement.

    A drawn sample is a weighting of the sorted pool: its median is where the running sum of the
    weights passes one half, so nothing is sorted twice. A block of more than SKETCH samples
    enters as that many of its quantiles, which moves its median by less than the noise.
    """
    if len(blocks) < MINIMUM_BLOCKS:
        blocks = list(np.concatenate(blocks)[:, None])
    pool = np.concatenate([_sketch(block) for block in blocks])
    owner = np.repeat(np.arange(len(blocks)), [min(len(block), SKETCH) for block in blocks])
    order = np.argsort(pool, kind="stable")
    pool, owner = pool[order], owner[order]
    rng = _rng(seed)
    medians: list[np.ndarray] = []
    step = max(1, MATRIX_ELEMENTS // len(pool))
    for start in range(0, RESAMPLES, step):
        draws = min(step, RESAMPLES - start)
        weights = rng.multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), draws)
        running = np.cumsum(weights[:, owner], axis=1)
        total = running[:, -1:]
        # The mean of the two middle samples; they are one where the total is odd.
        lower = np.argmax(running >= (total + 1) // 2, axis=1)
        upper = np.argmax(running >= total // 2 + 1, axis=1)
        medians.append((pool[lower] + pool[upper]) / 2)
    return np.concatenate(medians)


def _sketch(block: np.ndarray) -> np.ndarray:
    """The block, or SKETCH quantiles of it at evenly spaced ranks."""
    if len(block) <= SKETCH:
        return block
    return np.asarray(np.quantile(block, (np.arange(SKETCH) + 0.5) / SKETCH))


def _interval(draws: np.ndarray) -> Interval:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)


def _rng(seed: int = 0) -> np.random.Generator:
    """Seeded, so that the same samples give the same interval."""
    return np.random.default_rng(seed)

"""Median, percentiles, intervals by bootstrap, ratios and verdicts.

Samples of one block are alike (they share the machine's state), so the bootstrap draws whole
blocks, not samples (a block bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap,
1993, chapter 8). With fewer blocks than MINIMUM_BLOCKS there is no interval: what single samples of
few blocks say about the next block is nothing.
"""

from __future__ import annotations

import bisect
import functools
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

EARLY_STOPPING = 0.99

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
    return float(np.percentile(samples, q)) if len(samples) >= fewest_samples(q) else None


@functools.cache
def fewest_samples(q: float) -> int:
    """The fewest samples for which the q-th percentile means something.

    MLPerf's early stopping (LoadGen): the least n for which one sample or none beyond the true
    percentile has a probability of at most 1 - EARLY_STOPPING. 11, 64, 130, 662, 6,636 for
    50, 90, 95, 99, 99.9; below 50 as for the percentile as far above it.
    """
    p = max(q, 100 - q) / 100

    def enough(n: int) -> bool:
        return p**n + n * (1 - p) * p ** (n - 1) <= 1 - EARLY_STOPPING

    high = 2
    while not enough(high):
        high *= 2
    return bisect.bisect_left(range(high), True, key=enough)


def median_interval(blocks: Sequence[np.ndarray]) -> Interval | None:
    """The 95 % interval of the median of all samples; None with too few samples or blocks."""
    samples = sum(map(len, blocks))
    if samples < fewest_samples(50) or len(blocks) < MINIMUM_BLOCKS:
        return None
    return _interval(_bootstrap_medians([block for block in blocks if len(block)]))


def ratio(row: Sequence[np.ndarray], baseline: Sequence[np.ndarray]) -> Ratio | None:
    """The ratio of the medians of two rows measured in turn; None with too few samples or rounds.

    `row[i]` and `baseline[i]` are blocks of the same round: the value is the median of the rounds'
    ratios, so that a drift of the machine cancels.
    """
    pairs = [(a, b) for a, b in zip(row, baseline, strict=False) if len(a) and len(b)]
    if len(pairs) < MINIMUM_BLOCKS:
        return None
    mine, theirs = (np.array([np.median(block) for block in side]) for side in zip(*pairs))  # noqa: B905
    fewest = min(sum(map(len, side)) for side in zip(*pairs))  # noqa: B905
    if fewest < fewest_samples(50) or not (theirs > 0).all():
        return None
    ratios = mine / theirs
    return Ratio(value=float(np.median(ratios)), interval=_interval(_median_draws(ratios)))


def unpaired_ratio(row: Sequence[np.ndarray], baseline: Sequence[np.ndarray]) -> Ratio | None:
    """The ratio of the medians of two rows measured apart; None with too few samples or blocks.

    The interval is a bootstrap of each by itself: it knows nothing of what changed about the
    machine from the one run to the other.
    """
    if median_interval(row) is None or median_interval(baseline) is None:
        return None
    mine, theirs = (
        _bootstrap_medians([block for block in blocks if len(block)], seed)
        for seed, blocks in enumerate((row, baseline))
    )
    if not (theirs > 0).all():
        return None
    centres = [float(np.median(np.concatenate(blocks))) for blocks in (row, baseline)]
    return Ratio(value=centres[0] / centres[1], interval=_interval(mine / theirs))


def relative_reach(values: np.ndarray) -> float:
    """How far the 95 % interval of the median of one value a round reaches, over that median.

    Cheap enough to be asked after each round; infinity below MINIMUM_BLOCKS.
    """
    centre = float(np.median(values)) if len(values) >= MINIMUM_BLOCKS else 0.0
    return reach(_interval(_median_draws(values)), centre) if centre > 0 else float("inf")


def reach(interval: Interval, centre: float) -> float:
    """The longer side of an interval around `centre`, over `centre`."""
    return max(interval[1] - centre, centre - interval[0]) / centre


def _median_draws(values: np.ndarray) -> np.ndarray:
    """Medians of RESAMPLES draws with replacement."""
    draws = _rng().choice(values, (RESAMPLES, len(values)))
    return np.asarray(np.median(draws, axis=1))


def _bootstrap_medians(blocks: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """Medians of RESAMPLES pooled samples, each from blocks drawn with replacement.

    A drawn sample is a weighting of the sorted pool: its median is where the running sum of the
    weights passes one half, so nothing is sorted twice. A block of more than SKETCH samples
    enters as that many of its quantiles, each with the weight of the samples that it stands for.
    """
    sketches = [_sketch(block) for block in blocks]
    sizes = [len(sketch) for sketch in sketches]
    owner = np.repeat(np.arange(len(blocks)), sizes)
    weight = np.repeat([len(b) / s for b, s in zip(blocks, sizes, strict=True)], sizes)
    order = np.argsort(pool := np.concatenate(sketches), kind="stable")
    pool, owner, weight = pool[order], owner[order], weight[order]
    rng = _rng(seed)
    medians: list[np.ndarray] = []
    step = max(1, MATRIX_ELEMENTS // len(pool))
    for start in range(0, RESAMPLES, step):
        draws = min(step, RESAMPLES - start)
        drawn = rng.multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), draws)
        running = np.cumsum(drawn[:, owner] * weight, axis=1)
        half = running[:, -1:] / 2
        # The mean of the two middle samples; they are one where the total is odd.
        lower = np.argmax(running >= half, axis=1)
        upper = np.argmax(running > half, axis=1)
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

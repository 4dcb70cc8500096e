"""Medians, percentiles, bootstrap intervals, ratios and verdicts.

Samples of one block are correlated, since they share the machine's state. The bootstrap therefore
draws whole blocks, not samples (a block bootstrap: Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 8). With fewer than MINIMUM_BLOCKS blocks there is no interval, because the
samples of a few blocks do not predict the next block.

A ratio has one value per round. Its centre is the Hodges-Lehmann estimate, and its interval that of
Wilcoxon's signed-rank test (Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 2014,
section 3.3). The test only assumes that the ratio of a row to itself is above 1 as often, and as
far, as below. This is true because rows are measured in random order.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np

RESAMPLES = 1000
MINIMUM_BLOCKS = 5
CONFIDENCE = 0.95
WIN_CONFIDENCE = 0.99  # for FASTER and SLOWER: see Ratio
# Difference that is too small to report. Two processes of the same row differ by as much for their
# whole lifetime (memory layout, thread placement). More rounds do not average that out, only more
# processes do.
BAND = 0.01
DISTURBED = 0.05  # the fraction of the processor above which other load counts
SKETCH = 200  # most samples per block that enter the bootstrap

EARLY_STOPPING = 0.99
MOST_PAIRED = 400  # most values of which all pairs are formed
MOST_EXACT = 60

Interval = tuple[float, float]


class Verdict(StrEnum):
    """Verdict on the ratio of a row to the baseline."""

    FASTER = "FASTER"  # the whole wide interval is below 1 - BAND
    SLOWER = "SLOWER"  # the whole wide interval is above 1 + BAND
    SAME = "SAME"  # the whole interval is within BAND of 1
    UNCLEAR = "UNCLEAR"  # anything else


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Time of a row divided by the time of the baseline; below 1 is faster.

    `interval` has the confidence CONFIDENCE. `wide` has WIN_CONFIDENCE and decides whether a row is
    faster or slower, since of a hundred comparisons of equal rows five would be outside `interval`.

    `disturbance` is the fraction of the processor that other load took meanwhile. In the worst case
    it affected only one of the two rows, in every round, because their threads shared a core. That
    row then had twice the fraction in its blocks, which lengthened its times by the factor `slack`.

    `parts` are the centres of each process's rounds. Processes of the same row differ for their
    whole lifetime, which an interval over rounds does not include. A row is therefore faster or
    slower only if it is so in all of its processes.
    """

    value: float
    interval: Interval
    wide: Interval
    disturbance: float = 0.0
    parts: tuple[float, ...] = ()

    @property
    def slack(self) -> float:
        """Factor by which other load may have slowed one of the rows; 1 for none."""
        share = 2 * self.disturbance if self.disturbance > DISTURBED else 0.0
        return 1 / (1 - share) if share < 1 else math.inf

    def is_above(self, bound: float) -> bool:
        """Return whether the row takes longer than `bound` times the baseline.

        All of `wide` must be above the bound times `slack`, and all `parts` above the bound.
        """
        return self.wide[0] > bound * self.slack and all(part > bound for part in self.parts)

    @property
    def verdict(self) -> Verdict:
        below = 1 - BAND
        if self.wide[1] < below / self.slack and all(part < below for part in self.parts):
            return Verdict.FASTER
        if self.is_above(1 + BAND):
            return Verdict.SLOWER
        low, high = self.interval
        if low >= 1 - BAND and high <= 1 + BAND:
            return Verdict.SAME
        return Verdict.UNCLEAR


def percentile(samples: np.ndarray, q: float) -> float | None:
    """Return the q-th percentile by linear interpolation, None with too few samples for it."""
    return float(np.percentile(samples, q)) if len(samples) >= fewest_samples(q) else None


@functools.cache
def fewest_samples(q: float) -> int:
    """Return the fewest samples for which the q-th percentile is meaningful.

    This is MLPerf's early stopping (LoadGen): the least n for which at most one sample beyond the
    true percentile has a probability of at most 1 - EARLY_STOPPING. It is 11, 64, 130, 662 and
    6,636 for q = 50, 90, 95, 99 and 99.9, and below 50 the same as for 100 - q.
    """
    p = max(q, 100 - q) / 100

    def enough(n: int) -> bool:
        return p**n + n * (1 - p) * p ** (n - 1) <= 1 - EARLY_STOPPING

    high = 2
    while not enough(high):
        high *= 2
    return bisect.bisect_left(range(high), True, key=enough)


def early_stopping(samples: np.ndarray, q: float) -> float | None:
    """Return the q-th percentile by MLPerf's early stopping (LoadGen), None with too few samples.

    It is the t-th largest sample, where t is the largest number for which at most t samples beyond
    the true percentile have a probability of at most 1 - EARLY_STOPPING. The true percentile is
    thus above the result in at most one of a hundred cases.
    """
    discarded = _most_beyond(len(samples), q / 100)
    if discarded < 1:
        return None
    return float(np.partition(samples, -discarded)[-discarded])


@functools.cache
def _most_beyond(n: int, p: float) -> int:
    """Return the largest t with BinomCDF(t; n, 1 - p) <= 1 - EARLY_STOPPING, or -1.

    Each term follows from the one before by their ratio, in logarithms since the first is p**n. The
    median of the distribution is at most one above n (1 - p), so t cannot be larger.
    """
    t = np.arange(1, min(n, int(n * (1 - p)) + 2))
    steps = np.log((n - t + 1) / t * ((1 - p) / p))
    terms = n * np.log(p) + np.concatenate(([0.0], np.cumsum(steps)))
    allowed = 1 - EARLY_STOPPING
    return int(np.searchsorted(np.cumsum(np.exp(terms)), allowed, side="right")) - 1


def median_interval(blocks: Sequence[np.ndarray]) -> Interval | None:
    """Return the 95 % interval of the median of all samples, None with too little data."""
    samples = sum(map(len, blocks))
    if samples < fewest_samples(50) or len(blocks) < MINIMUM_BLOCKS:
        return None
    return _interval(_bootstrap_medians([block for block in blocks if len(block)]), CONFIDENCE)


def ratio(row: Sequence[np.ndarray], baseline: Sequence[np.ndarray]) -> Ratio | None:
    """Return the ratio of the medians of two interleaved rows.

    `row[i]` and `baseline[i]` are blocks of the same round. The value is the centre of the ratios
    of the rounds, so that a drift of the machine cancels. Returns None with too few samples or
    rounds.
    """
    pairs = [(a, b) for a, b in zip(row, baseline, strict=False) if len(a) and len(b)]
    if len(pairs) < MINIMUM_BLOCKS:
        return None
    mine, theirs = (np.array([np.median(block) for block in side]) for side in zip(*pairs))  # noqa: B905
    fewest = min(sum(map(len, side)) for side in zip(*pairs))  # noqa: B905
    return ratio_of_rounds(mine, theirs) if fewest >= fewest_samples(50) else None


def ratio_of_rounds(mine: np.ndarray, theirs: np.ndarray) -> Ratio | None:
    """Return the ratio of two rows from one figure per round.

    Returns None with too few rounds, or if a figure of the baseline (`theirs`) is not above 0.
    """
    if len(mine) < MINIMUM_BLOCKS or not (theirs > 0).all():
        return None
    ratios = mine / theirs
    return Ratio(
        value=centre(ratios),
        interval=exact_interval(ratios, CONFIDENCE),
        wide=exact_interval(ratios, WIN_CONFIDENCE),
    )


def unpaired_ratio(row: Sequence[np.ndarray], baseline: Sequence[np.ndarray]) -> Ratio | None:
    """Return the ratio of the medians of two rows that were measured separately.

    Each row is bootstrapped separately, so the interval does not include changes of the machine
    between the two measurements. Returns None with too few samples or blocks, or if a resampled
    median of the baseline is not above 0.
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
    return Ratio(
        value=centres[0] / centres[1],
        interval=_interval(mine / theirs, CONFIDENCE),
        wide=_interval(mine / theirs, WIN_CONFIDENCE),
    )


def centre(values: np.ndarray) -> float:
    """Return the Hodges-Lehmann estimate of positive values: the median of the means of all pairs.

    Means are geometric, here and in `exact_interval`.
    """
    return float(np.exp(np.median(_pair_means(values))))


def exact_interval(values: np.ndarray, confidence: float) -> Interval:
    """Return the interval of `centre`: the k-th smallest to k-th largest mean of all pairs.

    With too few values for this confidence, even for k = 1, it is the interval of Student's t on
    the logarithms.
    """
    means = _pair_means(values)
    k = _signed_rank(min(len(values), MOST_PAIRED), (1 - confidence) / 2)
    if not k:
        return _student_interval(values, confidence)
    return float(np.exp(means[k - 1])), float(np.exp(means[-k]))


def _pair_means(values: np.ndarray) -> np.ndarray:
    """Return the mean logarithm of every pair, including each value with itself, ascending.

    More than MOST_PAIRED values are first averaged with their neighbours.
    """
    with np.errstate(divide="ignore"):  # a time of zero becomes minus infinity, which sorts first
        logs = np.log(values)
    if len(logs) > MOST_PAIRED:
        logs = np.array([part.mean() for part in np.array_split(logs, MOST_PAIRED)])
    first, second = np.triu_indices(len(logs))
    return np.asarray(np.sort((logs[first] + logs[second]) / 2))


@functools.cache
def _signed_rank(count: int, tail: float) -> int:
    """Return the largest k for which a signed-rank sum is below k with probability <= `tail`, or 0.

    The sum is that of `count` values. Above MOST_EXACT values, its normal approximation is used.
    """
    if count > MOST_EXACT:
        mean = count * (count + 1) / 4
        deviation = math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
        return math.floor(mean + NormalDist().inv_cdf(tail) * deviation)
    probability = np.ones(1)
    for rank in range(1, count + 1):  # each rank is included with probability 1/2
        probability = np.pad(probability, (0, rank)) + np.pad(probability, (rank, 0))
        probability /= 2
    return int(np.searchsorted(np.cumsum(probability), tail, side="right"))


def _student_interval(values: np.ndarray, confidence: float) -> Interval:
    from scipy.special import stdtrit

    if (values <= 0).any():
        return float(values.min()), float("inf")
    logs = np.log(values)
    error = logs.std(ddof=1) / math.sqrt(len(logs))
    half = float(stdtrit(len(logs) - 1, (1 + confidence) / 2)) * error
    return float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))


def relative_reach(values: np.ndarray) -> float:
    """Return the longer side of the interval of the centre, relative to the centre.

    `values` has one value per round. This is cheap enough to call after each round. Returns
    infinity below MINIMUM_BLOCKS values.
    """
    middle = centre(values) if len(values) >= MINIMUM_BLOCKS else 0.0
    return reach(exact_interval(values, CONFIDENCE), middle) if middle > 0 else float("inf")


def reach(interval: Interval, centre: float) -> float:
    """Return the longer side of an interval around `centre`, divided by `centre`."""
    return max(interval[1] - centre, centre - interval[0]) / centre


def _bootstrap_medians(blocks: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """Return the medians of RESAMPLES resamples, each a pool of blocks drawn with replacement.

    A resample is a weighting of the sorted pool. Its median is where the running sum of the weights
    passes one half, so nothing is sorted twice. The sum is computed in two steps: over parts of the
    pool, then within the part where it passes one half. A block of more than SKETCH samples is
    replaced by that many of its quantiles, each weighted by the number of samples it represents.
    """
    sketches = [_sketch(block) for block in blocks]
    sizes = [len(sketch) for sketch in sketches]
    owner = np.repeat(np.arange(len(blocks)), sizes)
    weight = np.repeat([len(b) / s for b, s in zip(blocks, sizes, strict=True)], sizes)
    order = np.argsort(pool := np.concatenate(sketches), kind="stable")
    pool, owner, weight = pool[order], owner[order], weight[order]
    drawn = _rng(seed).multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), RESAMPLES)
    draws, size = np.arange(RESAMPLES), math.isqrt(len(pool))
    parts = np.zeros((-(-len(pool) // size), len(blocks)))
    np.add.at(parts, (np.arange(len(pool)) // size, owner), weight)
    sums = drawn @ parts.cumsum(axis=0).T
    half = sums[:, -1:] / 2

    def passing(first: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        part = first(sums)
        before = np.where(part > 0, sums[draws, part - 1], 0.0)
        places = np.minimum(part[:, None] * size + np.arange(size), len(pool) - 1)
        within = np.cumsum(
            np.take_along_axis(drawn, owner[places], axis=1) * weight[places], axis=1
        )
        return np.asarray(pool[places[draws, first(before[:, None] + within)]])

    # The mean of the two middle samples, which are the same one if the total is odd.
    lower = passing(lambda running: np.argmax(running >= half, axis=1))
    upper = passing(lambda running: np.argmax(running > half, axis=1))
    return np.asarray((lower + upper) / 2)


def _sketch(block: np.ndarray) -> np.ndarray:
    """Return the block, or SKETCH quantiles of a larger one at evenly spaced ranks."""
    if len(block) <= SKETCH:
        return block
    return np.asarray(np.quantile(block, (np.arange(SKETCH) + 0.5) / SKETCH))


def _interval(draws: np.ndarray, confidence: float) -> Interval:
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)


def _rng(seed: int = 0) -> np.random.Generator:
    """Return a seeded generator, so that the same samples give the same interval."""
    return np.random.default_rng(seed)

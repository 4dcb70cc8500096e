"""Median, percentiles, intervals by bootstrap, ratios and verdicts.

Samples of one block are alike (they share the machine's state), so the bootstrap draws whole
blocks, not samples (a block bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap,
1993, chapter 8). With fewer blocks than MINIMUM_BLOCKS there is no interval: what single samples of
few blocks say about the next block is nothing.

Ratios are of rounds, one value each: their centre is the Hodges-Lehmann estimate, and its interval
that of Wilcoxon's signed-rank test (Hollander, Wolfe and Chicken, Nonparametric Statistical
Methods, 2014, section 3.3), which asks only that a row against itself be above 1 as often, and as
far, as below. It is, since rows take their turns in random order.
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
# What is not worth a word. Two processes of the same thing differ by as much, for as long as they
# live (the layout of their memory, the placement of their threads): no number of rounds averages
# that out, only more processes do.
BAND = 0.01
DISTURBED = 0.05  # the share of the processor from which other work counts
SKETCH = 200  # samples of a block that enter the bootstrap

EARLY_STOPPING = 0.99
MOST_PAIRED = 400  # values of which all pairs are formed
MOST_EXACT = 60

Interval = tuple[float, float]


class Verdict(StrEnum):
    """How a row compares with the baseline."""

    FASTER = "FASTER"  # the whole wide interval is below 1 - BAND
    SLOWER = "SLOWER"  # the whole wide interval is above 1 + BAND
    SAME = "SAME"  # the whole interval is within BAND of 1
    UNCLEAR = "UNCLEAR"  # anything else


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Time of a row over time of the baseline: below 1 is faster.

    `interval` is that of CONFIDENCE; `wide`, of WIN_CONFIDENCE, is what calls a row faster or
    slower, since among a hundred comparisons of equal rows five would be outside the former.

    `disturbance` is the share of the processor that other work took meanwhile. It may have met one
    of the two rows alone, again and again, if that was the one whose threads lay on the same core:
    then it had twice that share in its turns, and `slack` is how much longer that made it take.

    `parts` are the centres of the rounds of each process by itself. Processes of the same thing
    differ for as long as they live, which no interval over rounds knows of, so a row is called
    faster or slower only where all of its processes are.
    """

    value: float
    interval: Interval
    wide: Interval
    disturbance: float = 0.0
    parts: tuple[float, ...] = ()

    @property
    def slack(self) -> float:
        """1 for none."""
        share = 2 * self.disturbance if self.disturbance > DISTURBED else 0.0
        return 1 / (1 - share) if share < 1 else math.inf

    def is_above(self, bound: float) -> bool:
        """Whether the row takes longer than `bound` times the baseline, beyond chance and slack,
        in each of its processes."""
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


def early_stopping(samples: np.ndarray, q: float) -> float | None:
    """The q-th percentile by MLPerf's early stopping (LoadGen); None with too few samples for it.

    The sample that has t - 1 above it, t being the most for which t samples or fewer beyond the
    true percentile have a probability of at most 1 - EARLY_STOPPING. So the true percentile lies
    above what is reported once in a hundred times at most.
    """
    discarded = _most_beyond(len(samples), q / 100)
    if discarded < 1:
        return None
    return float(np.partition(samples, -discarded)[-discarded])


@functools.cache
def _most_beyond(n: int, p: float) -> int:
    """The largest t with BinomCDF(t; n, 1 - p) <= 1 - EARLY_STOPPING; -1 where none has it.

    From each term to the next by their ratio, in logarithms, since the first is p**n. The median
    of the distribution is at most one above n (1 - p), so none beyond it can be meant.
    """
    t = np.arange(1, min(n, int(n * (1 - p)) + 2))
    steps = np.log((n - t + 1) / t * ((1 - p) / p))
    terms = n * np.log(p) + np.concatenate(([0.0], np.cumsum(steps)))
    allowed = 1 - EARLY_STOPPING
    return int(np.searchsorted(np.cumsum(np.exp(terms)), allowed, side="right")) - 1


def median_interval(blocks: Sequence[np.ndarray]) -> Interval | None:
    """The 95 % interval of the median of all samples; None with too few samples or blocks."""
    samples = sum(map(len, blocks))
    if samples < fewest_samples(50) or len(blocks) < MINIMUM_BLOCKS:
        return None
    return _interval(_bootstrap_medians([block for block in blocks if len(block)]), CONFIDENCE)


def ratio(row: Sequence[np.ndarray], baseline: Sequence[np.ndarray]) -> Ratio | None:
    """The ratio of the medians of two rows measured in turn; None with too few samples or rounds.

    `row[i]` and `baseline[i]` are blocks of the same round: the value is the centre of the rounds'
    ratios, so that a drift of the machine cancels.
    """
    pairs = [(a, b) for a, b in zip(row, baseline, strict=False) if len(a) and len(b)]
    if len(pairs) < MINIMUM_BLOCKS:
        return None
    mine, theirs = (np.array([np.median(block) for block in side]) for side in zip(*pairs))  # noqa: B905
    fewest = min(sum(map(len, side)) for side in zip(*pairs))  # noqa: B905
    return ratio_of_rounds(mine, theirs) if fewest >= fewest_samples(50) else None


def ratio_of_rounds(mine: np.ndarray, theirs: np.ndarray) -> Ratio | None:
    """The same for one figure a round; None with too few rounds or a figure that is not above 0."""
    if len(mine) < MINIMUM_BLOCKS or not (theirs > 0).all():
        return None
    ratios = mine / theirs
    return Ratio(
        value=centre(ratios),
        interval=exact_interval(ratios, CONFIDENCE),
        wide=exact_interval(ratios, WIN_CONFIDENCE),
    )


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
    return Ratio(
        value=centres[0] / centres[1],
        interval=_interval(mine / theirs, CONFIDENCE),
        wide=_interval(mine / theirs, WIN_CONFIDENCE),
    )


def centre(values: np.ndarray) -> float:
    """The Hodges-Lehmann estimate of positive values: the median of the means of all pairs.

    Means, here and in `exact_interval`, are geometric.
    """
    return float(np.exp(np.median(_pair_means(values))))


def exact_interval(values: np.ndarray, confidence: float) -> Interval:
    """The interval of `centre`: of the means of all pairs, the k-th smallest to the k-th largest.

    With so few values that even the outermost are not wide enough, it is Student's t of the
    logarithms.
    """
    means = _pair_means(values)
    k = _signed_rank(min(len(values), MOST_PAIRED), (1 - confidence) / 2)
    if not k:
        return _student_interval(values, confidence)
    return float(np.exp(means[k - 1])), float(np.exp(means[-k]))


def _pair_means(values: np.ndarray) -> np.ndarray:
    """The mean logarithm of every pair, each value with itself too, in order.

    More than MOST_PAIRED values are first joined with their neighbours.
    """
    with np.errstate(divide="ignore"):  # a time of zero is minus infinity, and sorts as such
        logs = np.log(values)
    if len(logs) > MOST_PAIRED:
        logs = np.array([part.mean() for part in np.array_split(logs, MOST_PAIRED)])
    first, second = np.triu_indices(len(logs))
    return np.asarray(np.sort((logs[first] + logs[second]) / 2))


@functools.cache
def _signed_rank(count: int, tail: float) -> int:
    """The largest k for which the signed-rank sum of `count` values is below k with a probability
    of at most `tail`; 0 for none. By its normal approximation above MOST_EXACT values."""
    if count > MOST_EXACT:
        mean = count * (count + 1) / 4
        deviation = math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
        return math.floor(mean + NormalDist().inv_cdf(tail) * deviation)
    probability = np.ones(1)
    for rank in range(1, count + 1):  # each rank counts or does not, with equal probability
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
    """How far the interval of the centre of one value a round reaches, over that centre.

    Cheap enough to be asked after each round; infinity below MINIMUM_BLOCKS.
    """
    middle = centre(values) if len(values) >= MINIMUM_BLOCKS else 0.0
    return reach(exact_interval(values, CONFIDENCE), middle) if middle > 0 else float("inf")


def reach(interval: Interval, centre: float) -> float:
    """The longer side of an interval around `centre`, over `centre`."""
    return max(interval[1] - centre, centre - interval[0]) / centre


def _bootstrap_medians(blocks: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """Medians of RESAMPLES pooled samples, each from blocks drawn with replacement.

    A drawn sample is a weighting of the sorted pool: its median is where the running sum of the
    weights passes one half, so nothing is sorted twice. The sum is taken in two steps, over parts
    of the pool and then within the part where it passes. A block of more than SKETCH samples enters
    as that many of its quantiles, each with the weight of the samples that it stands for.
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

    # The mean of the two middle samples; they are one where the total is odd.
    lower = passing(lambda running: np.argmax(running >= half, axis=1))
    upper = passing(lambda running: np.argmax(running > half, axis=1))
    return np.asarray((lower + upper) / 2)


def _sketch(block: np.ndarray) -> np.ndarray:
    """The block, or SKETCH quantiles of it at evenly spaced ranks."""
    if len(block) <= SKETCH:
        return block
    return np.asarray(np.quantile(block, (np.arange(SKETCH) + 0.5) / SKETCH))


def _interval(draws: np.ndarray, confidence: float) -> Interval:
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)


def _rng(seed: int = 0) -> np.random.Generator:
    """Seeded, so that the same samples give the same interval."""
    return np.random.default_rng(seed)

"""Medians, percentiles, intervals over processes, ratios and verdicts.

Two processes of the same row differ for their whole lifetime, and rounds of one process may be
correlated. The unit of every interval is therefore the process: a figure is computed for each
process, and the interval is that of Student's t over the logarithms of these figures (Kalibera and
Jones, Rigorous Benchmarking in Reasonable Time, 2013: the highest level of repetition decides).
Rounds within a process may have any distribution and correlation; the logarithms of the figures of
processes should be about normal. One process alone gives no interval.

The figure of a process is its median, or for a ratio the median over the rounds of that process,
which disturbed rounds hardly change.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
VERDICT_CONFIDENCE = 0.99  # for FASTER and SLOWER: see Ratio
BAND = 0.01  # difference that is too small to report
DISTURBED = 0.05  # the fraction of the processor above which other load counts

EARLY_STOPPING = 0.99
MOST_HALF = 300.0  # so that no bound overflows

Interval = tuple[float, float]


class Verdict(StrEnum):
    """Verdict on the ratio of a row to the baseline."""

    SAME = "SAME"  # the 95 % interval is within BAND of 1
    FASTER = "FASTER"  # not SAME, and the whole 99 % interval is below 1
    SLOWER = "SLOWER"  # not SAME, and the whole 99 % interval is above 1
    UNCLEAR = "UNCLEAR"  # anything else


class Remedy(StrEnum):
    """What would narrow an interval most."""

    PROCESSES = "more processes"
    TIME = "longer"


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Deviation of the figures of a row's processes, as fractions of the figure.

    `total` is the standard deviation over processes. `rounds` is the part of it that the rounds
    within a process explain: the root mean square of the standard errors of the figures.
    """

    total: float
    rounds: float

    @property
    def remedy(self) -> Remedy:
        """What reduces the larger part: more rounds in each process, or more processes."""
        return Remedy.TIME if self.rounds**2 > self.total**2 / 2 else Remedy.PROCESSES


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Time of a row divided by the time of the baseline; below 1 is faster.

    `interval` has the confidence CONFIDENCE. `wide` has VERDICT_CONFIDENCE and decides whether a
    row is faster or slower, since `interval` does not contain 1 in five of a hundred comparisons of
    equal rows. Both are None if either row ran in one process. `processes` has the ratio of each
    process, if the rows were measured in turn, and `spread` how these differ.
    """

    value: float
    interval: Interval | None
    wide: Interval | None
    processes: tuple[float, ...] = ()
    spread: Spread | None = None

    def is_above(self, bound: float) -> bool:
        """Return whether the whole wide interval is above `bound`."""
        return self.wide is not None and self.wide[0] > bound

    @property
    def verdict(self) -> Verdict:
        if self.interval is None or self.wide is None:
            return Verdict.UNCLEAR
        low, high = self.interval
        if low >= 1 - BAND and high <= 1 + BAND:
            return Verdict.SAME
        if self.wide[1] < 1:
            return Verdict.FASTER
        return Verdict.SLOWER if self.is_above(1) else Verdict.UNCLEAR


def percentile(samples: np.ndarray, q: float) -> float | None:
    """Return the q-th percentile by linear interpolation, None with too few samples for it.

    The median only needs one sample, because its interval shows how certain it is.
    """
    enough = 1 if q == 50 else fewest_samples(q)
    return float(np.percentile(samples, q)) if len(samples) >= enough else None


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


def typical_median(processes: Sequence[np.ndarray]) -> float | None:
    """Return the median of a row: the geometric mean of the medians of its processes.

    It is the median of all samples if a process has a median of 0, and None without samples.
    """
    processes = [samples for samples in processes if len(samples)]
    if not processes:
        return None
    figures = np.array([np.median(samples) for samples in processes])
    if len(figures) == 1 or not (figures > 0).all():
        return float(np.median(np.concatenate(processes)))
    return _geometric_mean(figures)


def median_interval(processes: Sequence[np.ndarray]) -> Interval | None:
    """Return the 95 % interval of `typical_median`.

    `processes` has the samples of each process. Returns None with one process, and if a process has
    a median of 0.
    """
    figures = np.array([np.median(samples) for samples in processes if len(samples)])
    return interval_over(figures, CONFIDENCE)


def median_reach(processes: Sequence[np.ndarray]) -> float | None:
    """Return the longer side of `median_interval`, relative to the median; None without it."""
    interval, median = median_interval(processes), typical_median(processes)
    return None if interval is None or median is None else reach(interval, median)


def percentile_interval(processes: Sequence[np.ndarray], q: float) -> Interval | None:
    """Return the 95 % interval of the q-th percentile of all samples of a row.

    The fraction of samples at or below the percentile varies between processes. Its interval is
    that of Student's t with the standard error over processes, and its bounds are converted to
    percentiles (Woodruff, Confidence Intervals for Medians and Other Position Measures, 1952, for
    samples in clusters). Returns None with one process, with too few samples for the percentile,
    and if a bound is beyond all samples.
    """
    processes = [samples for samples in processes if len(samples)]
    pooled = np.concatenate(processes) if processes else np.empty(0)
    value = percentile(pooled, q)
    if value is None or len(processes) < 2:
        return None
    count, fraction = len(processes), q / 100
    below = float((pooled <= value).mean())  # not `fraction` exactly if values are equal
    excess = np.array([(samples <= value).sum() - below * len(samples) for samples in processes])
    error = math.sqrt(count / (count - 1) * float((excess**2).sum())) / len(pooled)
    half = _student(count - 1, CONFIDENCE) * error
    if fraction - half < 0 or fraction + half > 1:
        return None
    low, high = np.quantile(pooled, [fraction - half, fraction + half])
    return float(low), float(high)


def paired_ratio(processes: Sequence[np.ndarray]) -> Ratio | None:
    """Return the ratio of two rows that were measured in turn.

    `processes` has the ratios of the rounds of each process, so that a drift of the machine
    cancels. Returns None without any, and if one is not a positive number.
    """
    processes = [rounds for rounds in processes if len(rounds)]
    if not processes or not all((rounds > 0).all() for rounds in processes):
        return None
    figures = np.array([np.median(rounds) for rounds in processes])
    return Ratio(
        value=_geometric_mean(figures),
        interval=interval_over(figures, CONFIDENCE),
        wide=interval_over(figures, VERDICT_CONFIDENCE),
        processes=tuple(figures.tolist()),
        spread=spread_of(processes),
    )


def unpaired_ratio(row: Sequence[np.ndarray], baseline: Sequence[np.ndarray]) -> Ratio | None:
    """Return the ratio of two rows that were measured separately, from the medians of processes.

    `row` and `baseline` have the samples of each process. The interval is Welch's, on logarithms;
    it does not include changes of the machine between the two measurements. Returns None without
    samples, or if a median is 0.
    """
    sides = [[samples for samples in side if len(samples)] for side in (row, baseline)]
    if not all(sides):
        return None
    mine, theirs = (np.array([np.median(samples) for samples in side]) for side in sides)
    if not (mine > 0).all() or not (theirs > 0).all():
        return None
    return Ratio(
        value=_geometric_mean(mine) / _geometric_mean(theirs),
        interval=_welch_interval(mine, theirs, CONFIDENCE),
        wide=_welch_interval(mine, theirs, VERDICT_CONFIDENCE),
    )


def interval_over(figures: np.ndarray, confidence: float) -> Interval | None:
    """Return the interval of the geometric mean of one figure per process.

    It is that of Student's t over logarithms. Returns None for fewer than two figures, and if one
    is not positive.
    """
    if len(figures) < 2 or not (figures > 0).all():
        return None
    error = float(np.log(figures).std(ddof=1)) / math.sqrt(len(figures))
    return _around(_geometric_mean(figures), _student(len(figures) - 1, confidence) * error)


def spread_of(processes: Sequence[np.ndarray]) -> Spread | None:
    """Return the deviation of the figures of processes, each given by the values of its rounds.

    Returns None for fewer than two processes, or if one has too few rounds for an interval.
    """
    intervals = [interval for rounds in processes if (interval := rounds_interval(rounds))]
    if len(processes) < 2 or len(intervals) < len(processes):
        return None
    if not all((rounds > 0).all() for rounds in processes):
        return None
    figures = [np.median(rounds) for rounds in processes]
    widths = np.array([np.log(high / low) for low, high in intervals])
    errors = widths / 2 / NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    return Spread(
        total=float(np.log(figures).std(ddof=1)),
        rounds=float(np.sqrt((errors**2).mean())),
    )


def _welch_interval(mine: np.ndarray, theirs: np.ndarray, confidence: float) -> Interval | None:
    """Return Welch's interval of the ratio of geometric means, None for one figure on a side."""
    if min(len(mine), len(theirs)) < 2:
        return None
    errors = [float(np.log(side).var(ddof=1)) / len(side) for side in (mine, theirs)]
    weights = [
        error**2 / (len(side) - 1) for error, side in zip(errors, (mine, theirs), strict=True)
    ]
    value = _geometric_mean(mine) / _geometric_mean(theirs)
    if not sum(weights):
        return value, value
    freedom = sum(errors) ** 2 / sum(weights)  # Welch and Satterthwaite
    return _around(value, _student(freedom, confidence) * math.sqrt(sum(errors)))


def _student(freedom: float, confidence: float) -> float:
    """Return the two-sided quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + confidence) / 2))


def _around(value: float, half: float) -> Interval:
    """Return the interval from `value` divided by exp(half) to `value` times exp(half)."""
    factor = math.exp(min(half, MOST_HALF))
    return value / factor, value * factor


def _geometric_mean(figures: np.ndarray) -> float:
    return math.exp(float(np.log(figures).mean()))


def rounds_interval(values: np.ndarray) -> Interval | None:
    """Return the 95 % interval of the median of the rounds of one process, None for too few.

    Its bounds are order statistics, so it only assumes that rounds are independent (Hollander,
    Wolfe and Chicken, Nonparametric Statistical Methods, 2014, section 3.6).
    """
    skipped = _skipped(len(values))
    if skipped < 0:
        return None
    values = np.sort(values)
    return float(values[skipped]), float(values[-1 - skipped])


@functools.cache
def _skipped(count: int) -> int:
    """Return how many of the smallest values are below the interval, -1 for too few values.

    At most that many of `count` values are below their true median with a probability of at most
    (1 - CONFIDENCE) / 2.
    """
    from scipy.special import bdtr

    below = bdtr(np.arange(count // 2 + 1), count, 0.5)
    return int(np.searchsorted(below, (1 - CONFIDENCE) / 2, side="right")) - 1


def relative_reach(values: np.ndarray) -> float:
    """Return the longer side of the interval of the median of rounds, relative to the median.

    Returns infinity for too few values and for a median of 0.
    """
    interval, median = rounds_interval(values), float(np.median(values))
    return reach(interval, median) if interval and median > 0 else float("inf")


def reach(interval: Interval, centre: float) -> float:
    """Return the longer side of an interval around `centre`, divided by `centre`."""
    return max(interval[1] - centre, centre - interval[0]) / centre

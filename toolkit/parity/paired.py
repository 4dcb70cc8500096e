"""Paired comparison of two models on the same samples: the drop from A to B, and its interval.

Accuracies are compared by the samples that only one of the two has right, with McNemar's exact test
(McNemar, Psychometrika 12, 1947; the binomial version as in Fagerland, Lydersen and Laake, BMC
Medical Research Methodology 13:91, 2013) and Tango's score interval for the difference (Tango,
Statistics in Medicine 17:891-908, 1998), which Fagerland, Lydersen and Laake recommend (Statistics
in Medicine 33:2850-2875, 2014). Unlike Wald's interval, it is not empty without such samples, and
it widens with fewer samples.

Errors of models that predict values are compared by a bootstrap: see toolkit.parity.bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np

from toolkit.core.documents import Json
from toolkit.core.errors import UsageError
from toolkit.core.gates import CheckOutcome
from toolkit.parity.bootstrap import Estimate, bootstrap_difference

CONFIDENCE = 0.95
MAX_DROP = 0.5  # default of the largest allowed drop: percentage points, or per cent of the MSE
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
HALVINGS = 60
MOST_ROWS = 10**9  # largest number of samples that is suggested


class Unit(StrEnum):
    """Unit of a drop: percentage points of accuracy, or per cent of A's MSE."""

    POINTS = "points"
    MSE = "% of the MSE"


@dataclass(frozen=True, kw_only=True)
class Drop:
    """Drop from A to B on the same samples, in `unit`; below 0, B is better.

    For accuracies, `only_a` and `only_b` count the samples that only one of the two has right, and
    `p` is McNemar's p-value. For errors, `squared` is the difference of the mean squared errors.
    """

    unit: Unit
    rows: int
    value: float
    interval: tuple[float, float]
    p: float | None = None
    only_a: int | None = None
    only_b: int | None = None
    squared: Estimate | None = None

    @property
    def shown(self) -> bool:
        """Whether the drop is significant by its interval and, for accuracies, McNemar's test."""
        low, high = self.interval
        return (low > 0 or high < 0) and (self.p is None or self.p <= 1 - CONFIDENCE)

    def gate(self, allowed: float) -> CheckOutcome:
        """Return PASSED if the interval is at most `allowed`, FAILED if above it, else UNKNOWN."""
        low, high = self.interval
        if high <= allowed:
            return CheckOutcome.PASSED
        return CheckOutcome.FAILED if low > allowed else CheckOutcome.UNKNOWN

    def rows_needed(self, allowed: float) -> int | None:
        """Return about how many samples would decide the gate, with the proportions of these.

        Returns None if that is more than MOST_ROWS, or if the drop equals `allowed`, which no
        number of samples could decide.
        """
        if self.unit is Unit.MSE:
            return self._by_width(allowed)
        assert self.only_a is not None
        assert self.only_b is not None
        shares = self.only_a / self.rows, self.only_b / self.rows

        def told(rows: float) -> bool:
            low, high = tango_interval(shares[0] * rows, shares[1] * rows, rows)
            return 100 * high <= allowed or 100 * low > allowed

        return _fewest(told, self.rows)

    def _by_width(self, allowed: float) -> int | None:
        """Estimate `rows_needed`, since the interval narrows with the root of the sample count."""
        end = self.interval[1] if self.value < allowed else self.interval[0]
        if self.value == allowed:
            return None
        found = self.rows * ((end - self.value) / (allowed - self.value)) ** 2
        return max(self.rows, math.ceil(found)) if found <= MOST_ROWS else None

    def to_json(self) -> Json:
        return {
            "unit": self.unit,
            "rows": self.rows,
            "value": self.value,
            "ci95": list(self.interval),
            "shown": self.shown,
            "mcnemar_p": self.p,
            "only_a_right": self.only_a,
            "only_b_right": self.only_b,
            "squared_error": self.squared and self.squared.to_json(),
        }


def check_max_drop(allowed: float) -> None:
    """Raise UsageError unless the allowed drop is above 0 and at most 100."""
    if not 0 < allowed <= 100:
        raise UsageError(
            f"Got --max-drop {allowed:g}, expected more than 0 and at most 100: percentage points "
            "of accuracy, or per cent of the mean squared error.",
            hint="Give, for example, --max-drop 0.5.",
        )


def accuracy_drop(a_right: np.ndarray, b_right: np.ndarray) -> Drop:
    """Return how much less accurate B is, from masks [N] of the samples that each has right."""
    only_a = int((a_right & ~b_right).sum())
    only_b = int((b_right & ~a_right).sum())
    rows = len(a_right)
    low, high = tango_interval(only_a, only_b, rows)
    return Drop(
        unit=Unit.POINTS,
        rows=rows,
        value=100 * (only_a - only_b) / rows,
        interval=(100 * low, 100 * high),
        p=mcnemar(only_a, only_b),
        only_a=only_a,
        only_b=only_b,
    )


def error_drop(a_errors: np.ndarray, b_errors: np.ndarray) -> Drop | None:
    """Return how much larger B's mean squared error is, from the squared errors [N] of the samples.

    Returns None if A's error is 0, since a percentage of it is undefined.
    """
    if not a_errors.any():
        return None
    found = bootstrap_difference(a_errors, b_errors, CONFIDENCE)
    return Drop(
        unit=Unit.MSE,
        rows=len(a_errors),
        value=found.percent.value,
        interval=found.percent.interval,
        squared=found.absolute,
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the p-value of McNemar's exact two-sided test, computed with integers.

    It is the probability of a split at least as unequal, if each sample that only one has right is
    equally likely to be A's or B's.
    """
    discordant, fewer = only_a + only_b, min(only_a, only_b)
    if 2 * fewer == discordant:
        return 1.0
    term = total = 1
    for k in range(fewer):
        term = term * (discordant - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / (1 << discordant))


def tango_interval(only_a: float, only_b: float, rows: float) -> tuple[float, float]:
    """Return Tango's 95 % interval of A's accuracy minus B's, as fractions.

    It has the differences that a score test does not reject. Counts need not be integers.
    """
    found = (only_a - only_b) / rows

    def kept(difference: float) -> bool:
        return abs(_score(only_a, only_b, rows, difference)) <= Z

    return _edge(kept, found, -1.0), _edge(kept, found, 1.0)


def _score(only_a: float, only_b: float, rows: float, difference: float) -> float:
    """Return Tango's statistic: the distance from `difference` in standard errors.

    The standard error uses the most likely fraction of samples that only B has right, given that
    difference.
    """
    away = only_a - only_b - rows * difference
    half = (2 * rows - only_a + only_b) * difference - only_a - only_b
    root = math.sqrt(max(half**2 + 8 * rows * only_b * difference * (1 - difference), 0.0))
    share = (root - half) / (4 * rows)
    variance = rows * (2 * share + difference * (1 - difference))
    if variance <= 0:
        return 0.0 if away == 0 else math.copysign(math.inf, away)
    return away / math.sqrt(variance)


def _edge(kept: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return the limit of the values that `kept` accepts, from `inside` (accepted) to `outside`."""
    if kept(outside):
        return outside
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if kept(middle) else (inside, middle)
    return inside


def _fewest(told: Callable[[float], bool], rows: int) -> int | None:
    """Return the least number of samples, from `rows` on, that `told` accepts, to three digits."""
    low, high = rows, rows
    while not told(high):
        low, high = high, 2 * high
        if high > MOST_ROWS:
            return None
    while high - low > max(1, high // 1000):
        middle = (low + high) // 2
        low, high = (low, middle) if told(middle) else (middle, high)
    return high

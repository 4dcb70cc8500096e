"""Search for the highest query rate at which the p99 latency stays within a bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from toolkit.core.errors import UsageError
from toolkit.core.queries import Window
from toolkit.measuring.figures.statistics import fewest_samples
from toolkit.measuring.load_test.load_generator import Schedule
from toolkit.measuring.load_test.queueing import estimated_p99, holds, services
from toolkit.measuring.load_test.scenarios import (
    MOST_QPS,
    MOST_QUERIES,
    Report,
    ServedRow,
    Traffic,
    alive,
    closed_loop,
    poisson,
    warm_up,
    window_ns,
)
from toolkit.measuring.timing.engine import Procedure

WITHIN = 1.05  # the search ends when lowest failed rate / highest sustained rate is at most this
START = 0.5  # first rate, as a fraction of the throughput of one client that is never idle
FALL = 64  # rates below the first one divided by this are not tried
TRY_SECONDS = 60.0  # longest planned duration of a trial, unless --max-seconds is longer


@final
@dataclass(kw_only=True)
class Search:
    """Search that doubles the rate while it is sustained, or halves it while not, then bisects.

    Bisection takes the geometric mean. `rate` is the next rate to try, or None if the search is
    over. Rates stay between `floor` and MOST_QPS.
    """

    rate: float | None
    floor: float
    held: float | None = None
    failed: float | None = None

    def note(self, held: bool) -> None:
        """Record whether `rate` was sustained, and choose the next rate."""
        if held:
            self.held = self.rate
        else:
            self.failed = self.rate
        self.rate = self._next()

    def _next(self) -> float | None:
        if self.held is None:
            lower = (self.failed or 0.0) / 2
            return lower if lower >= self.floor else None
        if self.failed is None:
            return None if self.held * 2 > MOST_QPS else self.held * 2
        if self.failed <= WITHIN * self.held:
            return None
        return math.sqrt(self.held * self.failed)


def find_rates(
    served_rows: Sequence[ServedRow], traffic: Traffic, procedure: Procedure, report: Report
) -> None:
    """Search for the highest sustainable rate of every row, with one trial per row and round.

    A row is not searched if its p99 is unknown or above the bound even when a single client runs
    one query at a time.
    """
    bound_ns = traffic.p99_bound_ns
    assert bound_ns is not None
    warm_up(served_rows, traffic, procedure)
    searches: list[tuple[ServedRow, Search]] = []
    for served_row in alive(served_rows):
        with served_row.keeping_failure():
            served_row.alone = _serve_alone(served_row, traffic, procedure)
            if (estimated_p99([served_row.alone]) or math.inf) <= bound_ns:
                searches.append((served_row, _search_from(served_row.alone, procedure)))
    tries = 0
    rng = np.random.default_rng(0)
    while going := [
        (served_row, s, s.rate)
        for served_row, s in searches
        if s.rate and served_row.failure is None
    ]:
        for index in rng.permutation(len(going)):
            served_row, search, rate = going[index]
            with served_row.keeping_failure():
                window = served_row.answer(_try(rate, traffic, procedure), traffic, rate)
                served_row.windows.append(window)
                search.note(holds(window, bound_ns))
        tries += 1
        more = any(search.rate and served_row.failure is None for served_row, search in searches)
        report(tries, tries + more, ", ".join(f"{rate:.4g}/s" for *_, rate in going))


def _serve_alone(served_row: ServedRow, traffic: Traffic, procedure: Procedure) -> Window:
    """Run one client in a closed loop, for at least as many queries as a p99 needs.

    Raises UsageError if queries take so long that no rate can be tested within a trial's time.
    """
    fewest, most_s = fewest_samples(99.0), _most_seconds(procedure)
    window = served_row.answer(closed_loop(1, window_ns(procedure)), traffic)
    if window.answered >= fewest:
        return window
    service_s = _service_ns(window) / 1e9
    if (needed_s := fewest * service_s / START) > most_s:
        raise UsageError(
            f"A query takes {service_s:.3g} s. The {fewest} that a p99 needs would take "
            f"{needed_s:.0f} s at half the rate that one client serves, and a try takes "
            f"{most_s:g} s at most.",
            hint=f"Give --max-seconds {math.ceil(needed_s)} or more.",
        )
    return served_row.answer(closed_loop(1, round(most_s * 1e9), fewest), traffic)


def _search_from(alone: Window, procedure: Procedure) -> Search:
    start = min(MOST_QPS, START * 1e9 / _service_ns(alone))
    floor = max(fewest_samples(99.0) / _most_seconds(procedure), start / FALL)
    return Search(rate=start, floor=floor)


def _try(rate: float, traffic: Traffic, procedure: Procedure) -> Schedule:
    """Return the schedule of a trial: at least a window's queries, and enough for a p99.

    At most MOST_QUERIES. All trials have the same gaps, scaled by the rate, so that chance does not
    decide between two rates.
    """
    queries = max(fewest_samples(99.0), math.ceil(rate * window_ns(procedure) / 1e9))
    rng = np.random.default_rng(traffic.seed)
    return poisson(traffic.concurrency, rate, min(MOST_QUERIES, queries), rng)


def _most_seconds(procedure: Procedure) -> float:
    return max(TRY_SECONDS, procedure.max_seconds)


def _service_ns(window: Window) -> float:
    return float(np.median(services([window])))

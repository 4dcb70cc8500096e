"""Records of a load scenario: when each query was scheduled, started and finished."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from toolkit.core.codec import Count, Size


class Scenario(StrEnum):
    """Arrival pattern of queries, described in docs/measuring.md."""

    SINGLE = "single"  # each client sends the next query when it has its answer
    SERVER = "server"  # random arrivals at a given mean rate, independent of answers
    OFFLINE = "offline"  # all queries arrive at the start


@dataclass(frozen=True, kw_only=True)
class Window:
    """Queries of one row in one period, in int64 nanoseconds since its start.

    Windows of different rows are interleaved. Queries are in order of arrival, which is also the
    order in which clients took them. `scheduled` is longer than `started` and `finished` if the
    time was over before all queries were taken. `qps` is the requested rate, None if there was
    none. `lead` holds the durations of the runs that the clients made before the start; they are
    stored but not part of any statistic. `process` is the number of the row's process, from 0.
    """

    round: Size
    qps: float | None
    lead: np.ndarray
    scheduled: np.ndarray
    started: np.ndarray
    finished: np.ndarray
    process: Size = 0

    @property
    def asked(self) -> int:
        return len(self.scheduled)

    @property
    def answered(self) -> int:
        return len(self.finished)

    @property
    def elapsed_ns(self) -> int:
        """Time from the start of the window to the last answer, 0 without answers."""
        return int(self.finished.max()) if self.answered else 0


@dataclass(frozen=True, kw_only=True)
class Served:
    """All queries of one row in one scenario, answered by `concurrency` clients.

    `settled` is whether the warm-up reached a steady state. If the scenario searches for the
    highest rate that keeps the 99th percentile of the latency within `p99_bound_ns`, each window is
    one trial, and `alone` holds the queries of a single client in a closed loop before the search.
    """

    scenario: Scenario
    concurrency: Count
    warmup: np.ndarray
    settled: bool
    windows: tuple[Window, ...]
    p99_bound_ns: Size | None = None
    alone: Window | None = None

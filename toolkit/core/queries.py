"""What a load scenario leaves behind: when each query was due, begun and answered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from toolkit.core.codec import Count, Size


class Scenario(StrEnum):
    """When queries come: see docs/measuring.md."""

    SINGLE = "single"  # a client's next one when its last is answered
    SERVER = "server"  # at random, at a given rate, whatever became of the last
    OFFLINE = "offline"  # all are there from the start


@dataclass(frozen=True, kw_only=True)
class Window:
    """Queries in a stretch of time, between the windows of other rows; int64 ns since its start.

    They are in the order of arrival, and were taken in that order. `scheduled` is longer than
    `started` and `finished` where the time was over before all were taken. `qps` is the rate that
    was asked for, None where there was none. `lead` are the times of the runs with which the
    clients began: kept, and not part of any statistic.
    """

    round: Size
    qps: float | None
    lead: np.ndarray
    scheduled: np.ndarray
    started: np.ndarray
    finished: np.ndarray

    @property
    def asked(self) -> int:
        return len(self.scheduled)

    @property
    def answered(self) -> int:
        return len(self.finished)

    @property
    def elapsed_ns(self) -> int:
        """From the window's start to the last answer."""
        return int(self.finished.max()) if self.answered else 0


@dataclass(frozen=True, kw_only=True)
class Served:
    """All queries of one row in one scenario, answered by `concurrency` clients.

    `settled` is whether the warm-up came to rest. Where the largest rate was searched for that
    keeps the 99th percentile within `p99_bound_ns`, each window is a try of the search, and
    `alone` is what one client had before, with nothing else going on.
    """

    scenario: Scenario
    concurrency: Count
    warmup: np.ndarray
    settled: bool
    windows: tuple[Window, ...]
    p99_bound_ns: Size | None = None
    alone: Window | None = None

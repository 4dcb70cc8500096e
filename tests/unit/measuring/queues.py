"""A simulated server: a FIFO queue with several clients, in time that does not pass."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import numpy as np

from toolkit.core.errors import WorkerError
from toolkit.measuring.load_test.load_generator import Answers, Schedule


@final
@dataclass(kw_only=True)
class FakeServer:
    """Query `i` of window `n` takes `service_ns(n, i)`. Raises in the window `fails_at`."""

    service_ns: Callable[[int, int], int]
    name: str = "server"
    fails_at: int | None = None
    log: list[str] = field(default_factory=list)
    schedules: list[Schedule] = field(default_factory=list)
    cores: list[int | None] = field(default_factory=list)

    def window(self, schedule: Schedule, core: int | None = None) -> Answers:
        number = len(self.schedules)
        self.schedules.append(schedule)
        self.cores.append(core)
        self.log.append(self.name)
        if number == self.fails_at:
            raise WorkerError("The worker broke.", hint="Fix it.")
        free = [0] * schedule.clients
        started: list[int] = []
        finished: list[int] = []
        for i in range(schedule.most_queries):
            if schedule.most_ns is not None and free[0] >= schedule.most_ns:
                break
            due = 0 if schedule.arrivals is None else int(schedule.arrivals[i])
            began = max(due, heapq.heappop(free))
            started.append(began)
            finished.append(began + self.service_ns(number, i))
            heapq.heappush(free, finished[-1])
        return Answers(
            lead=np.array([self.service_ns(number, 0)], np.int64),
            started=np.array(started, np.int64),
            finished=np.array(finished, np.int64),
        )


def steady(ns: int) -> Callable[[int, int], int]:
    return lambda window, query: ns

"""Timed loop of the load scenarios: clients that answer queries, with a session and thread each.

The clients take queries in order of arrival, each the next one when it is idle. They form a queue
with as many servers as there are clients.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import TypeVar, final

import numpy as np

from toolkit.core.session import Session
from toolkit.core.specs import Feeds
from toolkit.measuring.timing.clock import Clock, collector_at_rest
from toolkit.measuring.timing.engine import LEAD_NS
from toolkit.measuring.workers.prctl import sharpen_sleep

Sleep = Callable[[float], None]
"""Function that waits for a number of seconds."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Queries of a window, and the conditions that end it.

    `arrivals` are int64 nanoseconds since the window's start, in ascending order. None means a
    closed loop, in which a query is available whenever a client is idle. After `most_queries` or
    `most_ns` (None: no time limit) no query is taken, but those taken are answered.
    """

    clients: int
    most_queries: int
    most_ns: int | None
    arrivals: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Start and end of each query taken from a schedule, in int64 nanoseconds since its start.

    The queries taken are the first of the schedule. `lead` has the durations of the runs that the
    clients made before the start.
    """

    lead: np.ndarray
    started: np.ndarray
    finished: np.ndarray


def answer(
    sessions: Sequence[Session],
    feeds: Sequence[Feeds],
    schedule: Schedule,
    clock: Clock = time.perf_counter_ns,
    sleep: Sleep = time.sleep,
) -> Answers:
    """Answer the queries of a window; query `i` is a run of `feeds[i % len(feeds)]`.

    Each client first runs for LEAD_NS, at least once. The window starts when all have done so.
    Raises the error of the first run that failed, after every client has ended.
    """
    window = _Window(feeds, schedule, clock, sleep)
    with collector_at_rest():
        leads = together(sessions[: schedule.clients], window.serve, on_failure=window.break_off)
    return window.answers(leads)


def together(
    sessions: Sequence[Session],
    task: Callable[[Session], T],
    on_failure: Callable[[], None] = lambda: None,
) -> list[T]:
    """Call `task` for each session at the same time, in one thread each, and return the results.

    The threads have the context variables of this thread, where torch keeps its settings. Each
    failure calls `on_failure`; the first is raised when all threads have ended. A single session
    runs in this thread, without `on_failure`.
    """
    if len(sessions) == 1:
        return [task(sessions[0])]
    failures: list[Exception] = []

    def attempt(session: Session) -> T:
        try:
            return task(session)
        except Exception as error:
            failures.append(error)
            on_failure()
            raise

    with ThreadPoolExecutor(len(sessions)) as pool:
        try:
            futures = [pool.submit(copy_context().run, attempt, session) for session in sessions]
        except RuntimeError:  # a thread could not be started: the others must not wait for it
            on_failure()
            raise
    if failures:
        raise failures[0]
    return [future.result() for future in futures]


@final
class _Window:
    """State that the clients of a window share."""

    def __init__(
        self, feeds: Sequence[Feeds], schedule: Schedule, clock: Clock, sleep: Sleep
    ) -> None:
        self._feeds = feeds
        self._schedule = schedule
        self._arrivals = None if schedule.arrivals is None else schedule.arrivals.tolist()
        self._clock, self._sleep = clock, sleep
        # next() is atomic under the interpreter's lock, so each number goes to one client.
        self._numbers = itertools.count()
        self._started = [0] * schedule.most_queries
        self._finished = [0] * schedule.most_queries
        self._start = threading.Barrier(schedule.clients, action=self._begin)
        self._origin = 0
        self._broken_off = False

    def _begin(self) -> None:
        self._origin = self._clock()

    def break_off(self) -> None:
        """Let every client end after its current query."""
        self._broken_off = True
        self._start.abort()

    def serve(self, session: Session) -> list[int]:
        """Run one client from its lead to the end of the window; return the times of the lead."""
        sharpen_sleep()
        lead = self._lead(session)
        self._start.wait()
        run, feeds, clock = session.run, self._feeds, self._clock
        arrivals, origin, most_ns = self._arrivals, self._origin, self._schedule.most_ns
        closes = math.inf if most_ns is None else origin + most_ns
        now = clock()
        while now < closes and not self._broken_off:
            number = next(self._numbers)
            if number >= self._schedule.most_queries:
                break
            if arrivals is not None and (early := origin + arrivals[number] - now) > 0:
                self._sleep(early / 1e9)
            inputs = feeds[number % len(feeds)]
            began = clock()
            run(inputs)
            now = clock()
            self._started[number], self._finished[number] = began, now
        return lead

    def _lead(self, session: Session) -> list[int]:
        """Run the lead, which meets cold caches and sleeping threads; return its run times."""
        lead: list[int] = []
        clock, feeds = self._clock, self._feeds
        first = now = clock()
        while (not lead or now - first < LEAD_NS) and not self._broken_off:
            began = now
            session.run(feeds[len(lead) % len(feeds)])
            now = clock()
            lead.append(now - began)
        return lead

    def answers(self, leads: Sequence[Sequence[int]]) -> Answers:
        taken = min(next(self._numbers), self._schedule.most_queries)
        return Answers(
            lead=np.array(list(itertools.chain(*leads)), np.int64),
            started=np.array(self._started[:taken], np.int64) - self._origin,
            finished=np.array(self._finished[:taken], np.int64) - self._origin,
        )

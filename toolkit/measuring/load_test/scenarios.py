"""Load scenarios: arrival of queries, and interleaved windows of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Protocol, final

import numpy as np

from toolkit.core.documents import Json
from toolkit.core.errors import ToolkitError, UsageError, unknown_name
from toolkit.core.queries import Scenario, Served, Window
from toolkit.measuring.figures.statistics import fewest_samples
from toolkit.measuring.load_test.load_generator import Answers, Schedule
from toolkit.measuring.timing.engine import Procedure, WarmUp
from toolkit.measuring.timing.placement import Turns

WINDOWS = 6  # per row, each in a separate process, since intervals are over processes
MOST_QUERIES = 20_000  # per window, so that at most a megabyte of it is stored
MOST_CLIENTS = 256
MOST_QPS = 1e6
MOST_MS = 1e6
NOTHING = np.empty(0, np.int64)

Report = Callable[[int, int, str], None]
"""Callback for progress: windows done, windows in all, and a description of the last."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Load scenario: how queries arrive at `concurrency` clients with a session each.

    `qps` is the mean rate of the server scenario. `find_qps` instead searches for the highest rate
    that keeps the 99th percentile of the latency within `p99_ms`. `seed` seeds the arrivals, which
    are the same for every row. Raises UsageError for invalid values or combinations.
    """

    scenario: str
    concurrency: int = 1
    qps: float | None = None
    find_qps: bool = False
    p99_ms: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        known = [scenario.value for scenario in Scenario]
        if self.scenario not in known:
            raise unknown_name("scenario", self.scenario, known)
        if not 1 <= self.concurrency <= MOST_CLIENTS:
            raise UsageError(
                f"Got --concurrency {self.concurrency}, expected 1 to {MOST_CLIENTS}.",
                hint="Give the number of clients that answer queries at the same time.",
            )
        for option, value, most in (("qps", self.qps, MOST_QPS), ("p99-ms", self.p99_ms, MOST_MS)):
            if value is not None and not 0 < value <= most:
                raise UsageError(
                    f"Got --{option} {value:g}, expected above 0, at most {most:g}.",
                    hint=f"Give --{option} a positive number.",
                )
        self._refuse_combinations()

    def _refuse_combinations(self) -> None:
        server = self.scenario == Scenario.SERVER
        for wrong, problem, hint in (
            (
                not server and (self.qps is not None or self.find_qps),
                f"Got a rate for the scenario {self.scenario}, whose queries follow no schedule.",
                "Give --scenario server, or leave out --qps and --find-qps.",
            ),
            (
                self.qps is not None and self.find_qps,
                "Got --qps together with --find-qps.",
                "Give the rate, or let it be found.",
            ),
            (
                server and self.qps is None and not self.find_qps,
                "The scenario server needs a rate.",
                "Give --qps 100, say, or --find-qps --p99-ms 20.",
            ),
            (
                self.find_qps and self.p99_ms is None,
                "Got --find-qps without the latency that is to be kept.",
                "Give --p99-ms 20, say.",
            ),
            (
                self.p99_ms is not None and not self.find_qps,
                "Got --p99-ms without --find-qps.",
                "Add --find-qps, or leave out --p99-ms: percentiles are reported in any case.",
            ),
        ):
            if wrong:
                raise UsageError(problem, hint=hint)

    def check(self, procedure: Procedure) -> None:
        """Raise UsageError if the scenario cannot follow the procedure."""
        if procedure.runs is not None or procedure.target_ci != Procedure().target_ci:
            raise UsageError(
                "Got --runs or --target-ci together with --scenario.",
                hint="A scenario lasts for --max-seconds a row: give that.",
            )
        fewest = fewest_samples(50.0)
        if self.qps is not None and self.qps * procedure.max_seconds < fewest:
            raise UsageError(
                f"{self.qps:g} queries a second for {procedure.max_seconds:g} s are fewer than "
                f"{fewest}.",
                hint=f"Give --max-seconds {np.ceil(fewest / self.qps):.0f} or more.",
            )

    @property
    def p99_bound_ns(self) -> int | None:
        return None if self.p99_ms is None else round(self.p99_ms * 1e6)

    def to_json(self) -> Json:
        return asdict(self)


def closed_loop(clients: int, most_ns: int | None, most_queries: int = MOST_QUERIES) -> Schedule:
    """Return a schedule that has a query whenever a client is idle."""
    return Schedule(clients=clients, most_queries=most_queries, most_ns=most_ns)


def poisson(clients: int, qps: float, queries: int, rng: np.random.Generator) -> Schedule:
    """Return a schedule of `queries` arrivals at mean rate `qps`, with exponential gaps.

    The gaps are independent. No query is taken later than queries / qps seconds after the last
    arrival.
    """
    arrivals = np.cumsum(rng.exponential(1e9 / qps, queries)).astype(np.int64)
    most_ns = int(arrivals[-1]) + round(queries * 1e9 / qps)
    return Schedule(clients=clients, most_queries=queries, most_ns=most_ns, arrivals=arrivals)


class Server(Protocol):
    """Interface of anything that answers queries: a worker, or a test double."""

    def window(self, schedule: Schedule, core: int | None = None) -> Answers: ...


@final
@dataclass(kw_only=True)
class ServedRow:
    """State of one row while it answers queries.

    `server` is the current process, `process` its number.
    """

    server: Server
    process: int = 0
    failure: ToolkitError | None = None
    warmups: list[WarmUp] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    alone: Window | None = None

    def move_to(self, server: Server) -> None:
        """Continue in the next process of the row."""
        self.server = server
        self.process += 1

    def warm_up(self, traffic: Traffic, procedure: Procedure) -> None:
        clients = traffic.concurrency

        def chunk(count: int) -> np.ndarray:
            answers = self.server.window(closed_loop(clients, None, count * clients))
            return np.asarray(answers.finished - answers.started)

        warmup = WarmUp()
        self.warmups.append(warmup)
        warmup.run(chunk, procedure.warmup, clients)

    def answer(
        self,
        schedule: Schedule,
        traffic: Traffic,
        qps: float | None = None,
        core: int | None = None,
    ) -> Window:
        """Answer one schedule, beginning on `core`. The round is the number of windows so far."""
        answers = self.server.window(schedule, core)
        if schedule.arrivals is not None:
            scheduled = schedule.arrivals
        elif traffic.scenario == Scenario.OFFLINE:
            scheduled = np.zeros_like(answers.started)
        else:
            scheduled = answers.started
        return Window(
            round=len(self.windows),
            qps=qps,
            lead=answers.lead,
            scheduled=scheduled,
            started=answers.started,
            finished=answers.finished,
            process=self.process,
        )

    def served(self, traffic: Traffic) -> Served:
        return Served(
            scenario=Scenario(traffic.scenario),
            concurrency=traffic.concurrency,
            warmup=np.concatenate([warmup.samples for warmup in self.warmups] or [NOTHING]),
            settled=all(warmup.settled for warmup in self.warmups),
            windows=tuple(self.windows),
            p99_bound_ns=traffic.p99_bound_ns,
            alone=self.alone,
        )

    @contextmanager
    def keeping_failure(self) -> Iterator[None]:
        """Store a ToolkitError that the block raises, so that only this row fails."""
        try:
            yield
        except ToolkitError as error:
            self.failure = error


def serve(
    served_rows: Sequence[ServedRow],
    traffic: Traffic,
    procedure: Procedure,
    number: int,
    turns: Turns,
) -> None:
    """Warm up every row, then run one window of each: round `number` of WINDOWS.

    All rows have the same schedule. With one client they begin on the same core; with several, each
    has a thread that the system places. A row that fails keeps its windows; the others continue.
    """
    warm_up(served_rows, traffic, procedure)
    schedule = _schedule(traffic, procedure, number)
    core = turns.core() if traffic.concurrency == 1 else None
    going = alive(served_rows)
    for index in turns.order(len(going)):
        served_row = going[index]
        with served_row.keeping_failure():
            served_row.windows.append(served_row.answer(schedule, traffic, traffic.qps, core))


def _schedule(traffic: Traffic, procedure: Procedure, number: int) -> Schedule:
    length_ns = window_ns(procedure)
    if traffic.qps is None:
        return closed_loop(traffic.concurrency, length_ns)
    queries = min(MOST_QUERIES, round(traffic.qps * length_ns / 1e9))
    rng = np.random.default_rng((traffic.seed, number))
    return poisson(traffic.concurrency, traffic.qps, queries, rng)


def window_ns(procedure: Procedure) -> int:
    """Return the length of a window in nanoseconds."""
    return round(procedure.max_seconds * 1e9 / WINDOWS)


def warm_up(served_rows: Sequence[ServedRow], traffic: Traffic, procedure: Procedure) -> None:
    for served_row in alive(served_rows):
        with served_row.keeping_failure():
            served_row.warm_up(traffic, procedure)


def alive(served_rows: Sequence[ServedRow]) -> list[ServedRow]:
    return [served_row for served_row in served_rows if served_row.failure is None]

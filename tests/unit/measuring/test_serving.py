"""The queue of a load scenario, on sessions of known times and a clock that they drive."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import final

import numpy as np
import pytest

from toolkit.core.errors import SessionError
from toolkit.core.session import Provenance, Session
from toolkit.core.specs import Feeds, Outputs, Signature, TensorSpec
from toolkit.measuring.load_test.load_generator import Answers, Schedule, answer, together
from toolkit.measuring.load_test.scenarios import poisson
from toolkit.measuring.timing.engine import LEAD_NS

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=(1,)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=(1,)),),
)
SETS = [{"x": np.full(1, i, np.float32)} for i in range(3)]
MS = 1_000_000


@final
class FakeSession(Session):
    """Calls `in_pass` with the number of each pass; remembers which set of inputs it was given."""

    def __init__(self, in_pass: Callable[[int], None]) -> None:
        super().__init__(SIGNATURE)
        self.sets: list[int] = []
        self._in_pass = in_pass

    def _prepare(self, dims: Mapping[str, int]) -> None:
        pass

    def _upload(self, feeds: Feeds) -> None:
        self.sets.append(int(feeds["x"][0]))

    def forward(self) -> None:
        self._in_pass(len(self.sets) - 1)

    def synchronize(self) -> None:
        pass

    def _download(self) -> Outputs:
        return {"y": np.full(1, self.sets[-1], np.float32)}

    def _provenance(self) -> Provenance:
        raise NotImplementedError

    def _close(self) -> None:
        pass


@final
@dataclass
class FakeTime:
    """A clock that stands still but for what passes and sleeps take."""

    now_ns: int = 5_000
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ns += round(seconds * 1e9)

    def session(self, *passes_ns: int) -> FakeSession:
        """Its first pass is the lead; then they take so long, the last one again and again."""

        def take(number: int) -> None:
            times = (LEAD_NS, *passes_ns)
            self.now_ns += times[min(number, len(times) - 1)]

        return FakeSession(take)


def serve(*passes_ns: int, most_ns: int | None = None, **schedule: object) -> Answers:
    """What one client answers whose passes take so long."""
    time = FakeTime()
    asked = Schedule(**{"clients": 1, "most_queries": 10, "most_ns": most_ns, **schedule})
    return answer([time.session(*passes_ns)], SETS, asked, time, time.sleep)


def at(*times_ms: float) -> dict[str, object]:
    """Arrivals at these milliseconds."""
    return {
        "arrivals": np.array([round(t * MS) for t in times_ms], np.int64),
        "most_queries": len(times_ms),
    }


def ms(times: np.ndarray) -> list[float]:
    return (times / MS).tolist()


def test_a_closed_loop_goes_on_when_the_last_is_answered() -> None:
    got = serve(2 * MS, 1 * MS, 3 * MS, most_queries=3)
    assert ms(got.started) == [0, 2, 3]
    assert ms(got.finished) == [2, 3, 6]


def test_an_idle_client_sleeps_until_the_query_is_due() -> None:
    got = serve(2 * MS, **at(1, 10))
    assert ms(got.started) == [1, 10]
    assert ms(got.finished) == [3, 12]


def test_a_stall_of_one_query_is_in_those_behind_it() -> None:
    """The second takes 10 ms in place of 1; who was due meanwhile waits, in order."""
    arrivals = at(0, 2, 4, 6, 8, 10, 20)
    got = serve(MS, 10 * MS, MS, **arrivals)
    latency = got.finished - arrivals["arrivals"]
    assert ms(got.started) == [0, 2, 12, 13, 14, 15, 20]
    assert ms(latency) == [1, 10, 9, 8, 7, 6, 1]


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_random_arrivals_wait_as_long_as_theory_says(load: float) -> None:
    """The mean of Pollaczek and Khinchine for a queue with one server and equal services."""
    schedule = poisson(1, load * 1000, 100_000, np.random.default_rng(0))
    time = FakeTime()
    got = answer([time.session(MS)], SETS, schedule, time, time.sleep)
    waited = (got.started - schedule.arrivals).mean() / MS
    assert waited == pytest.approx(load / (2 * (1 - load)), rel=0.05)


def test_after_most_ns_no_query_is_taken_and_what_was_taken_is_answered() -> None:
    got = serve(3 * MS, most_ns=7 * MS, **at(0, 1, 2, 3, 4))
    assert ms(got.started) == [0, 3, 6]
    assert ms(got.finished) == [3, 6, 9]


@pytest.mark.parametrize("most_ns", [None, 100 * MS])
def test_no_more_than_most_queries_are_taken(most_ns: int | None) -> None:
    assert len(serve(MS, most_ns=most_ns, most_queries=4).finished) == 4


def test_the_lead_comes_before_the_window_and_is_told_apart() -> None:
    got = serve(MS, most_queries=1)
    assert ms(got.lead) == [LEAD_NS / MS]
    assert ms(got.started) == [0]


def test_short_passes_are_repeated_until_the_lead_has_lasted() -> None:
    time = FakeTime()
    session = FakeSession(lambda number: time.sleep(LEAD_NS / 4e9))
    got = answer([session], SETS, Schedule(clients=1, most_queries=1, most_ns=None), time)
    assert len(got.lead) == 4


def test_inputs_are_taken_in_turn() -> None:
    time = FakeTime()
    session = time.session(MS)
    answer([session], SETS, Schedule(clients=1, most_queries=5, most_ns=None), time, time.sleep)
    assert session.sets == [0, *(0, 1, 2, 0, 1)]  # the lead, then the queries


@pytest.mark.parametrize("most_queries", [1, 7, 100])
def test_each_query_is_answered_once_whoever_takes_it(most_queries: int) -> None:
    sessions = [FakeSession(lambda number: None) for _ in range(3)]
    schedule = Schedule(clients=3, most_queries=most_queries, most_ns=None)
    got = answer(sessions, SETS, schedule)
    assert len(got.started) == len(got.finished) == most_queries
    assert (got.started <= got.finished).all()
    assert (got.started >= 0).all()
    assert sum(len(session.sets) for session in sessions) == most_queries + len(got.lead)


def test_sessions_are_in_their_passes_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=30)  # breaks, and so fails the pass, unless all come
    sessions = [FakeSession(lambda number: meeting.wait() and None) for _ in range(3)]
    assert len(together(sessions, lambda session: session.run(SETS[0]))) == 3


def test_threads_have_the_settings_of_the_one_that_opened_the_sessions() -> None:
    setting = ContextVar("setting", default="by default")
    setting.set("chosen")
    sessions = [FakeSession(lambda number: None) for _ in range(3)]
    assert together(sessions, lambda session: setting.get()) == ["chosen"] * 3


def test_only_so_many_sessions_serve_as_there_are_clients() -> None:
    sessions = [FakeSession(lambda number: None) for _ in range(3)]
    answer(sessions, SETS, Schedule(clients=2, most_queries=5, most_ns=None))
    assert [bool(session.sets) for session in sessions] == [True, True, False]


class BrokenPassError(Exception):
    pass


def breaking(at_pass: int) -> Callable[[int], None]:
    def in_pass(number: int) -> None:
        if number == at_pass:
            raise BrokenPassError

    return in_pass


@pytest.mark.parametrize("at_pass", [0, 50_000], ids=["in the lead", "in the window"])
@pytest.mark.parametrize("clients", [1, 3])
def test_a_failure_ends_every_client_and_is_raised(at_pass: int, clients: int) -> None:
    before = threading.active_count()
    sessions = [FakeSession(lambda number: None) for _ in range(clients - 1)]
    sessions.append(FakeSession(breaking(at_pass)))
    schedule = Schedule(clients=clients, most_queries=1_000_000, most_ns=None)
    with pytest.raises(SessionError, match="BrokenPassError"):
        answer(sessions, SETS, schedule)
    assert threading.active_count() == before
    assert sum(len(session.sets) for session in sessions) < 1_000_000


def test_a_thread_that_cannot_be_started_leaves_none_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = threading.active_count()
    start = threading.Thread.start

    def refuse_the_third(thread: threading.Thread) -> None:
        if threading.active_count() - before >= 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_the_third)
    sessions = [FakeSession(lambda number: None) for _ in range(4)]
    with pytest.raises(RuntimeError, match="new thread"):
        answer(sessions, SETS, Schedule(clients=4, most_queries=10, most_ns=None))
    assert threading.active_count() == before


@pytest.mark.parametrize("clients", [1, 4])
def test_together_gives_what_each_session_gave(clients: int) -> None:
    sessions = [FakeSession(lambda number: None) for _ in range(clients)]
    order = {id(session): number for number, session in enumerate(sessions)}
    assert together(sessions, lambda session: order[id(session)]) == list(range(clients))


def test_the_collector_rests_meanwhile(request: pytest.FixtureRequest) -> None:
    seen: list[bool] = []
    request.addfinalizer(gc.enable)
    gc.enable()
    session = FakeSession(lambda number: seen.append(gc.isenabled()))
    answer([session], SETS, Schedule(clients=1, most_queries=2, most_ns=None))
    assert set(seen) == {False}
    assert gc.isenabled()


@pytest.mark.parametrize("clients", [1, 2])
def test_queries_are_not_begun_before_they_are_due(clients: int) -> None:
    """With true time: by how much later is a matter of the machine."""
    arrivals = np.cumsum(np.random.default_rng(0).exponential(2e5, 200)).astype(np.int64)
    sessions = [FakeSession(lambda number: None) for _ in range(clients)]
    schedule = Schedule(clients=clients, most_queries=200, most_ns=10**10, arrivals=arrivals)
    got = answer(sessions, SETS, schedule)
    assert len(got.started) == 200
    assert (got.started >= arrivals).all()

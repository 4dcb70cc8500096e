"""Schedules, and windows in turn, on simulated servers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.measuring.queues import FakeServer, steady
from toolkit.core.errors import UnknownNameError, UsageError, WorkerError
from toolkit.measuring.load_test.scenarios import (
    MOST_QUERIES,
    WINDOWS,
    ServedRow,
    Traffic,
    poisson,
    serve,
)
from toolkit.measuring.timing.engine import Procedure
from toolkit.measuring.timing.placement import Turns

MS = 1_000_000
SINGLE = Traffic(scenario="single")
CORES = (0, 1, 2)
OFFLINE = Traffic(scenario="offline")


def server_at(qps: float, **options: object) -> Traffic:
    return Traffic(scenario="server", qps=qps, **options)


def run(
    traffic: Traffic, *servers: FakeServer, procedure: Procedure | None = None
) -> list[ServedRow]:
    """Run all windows; the same simulated server stands for each process of its row."""
    served_rows = [ServedRow(server=server) for server in servers]
    chosen = procedure or Procedure(max_seconds=6.0, warmup=1)
    turns = Turns(CORES)
    for number in range(WINDOWS):
        for served_row, server in zip(served_rows, servers, strict=True):
            if number:
                served_row.move_to(server)
        serve(served_rows, traffic, chosen, number, turns)
    return served_rows


rates = st.floats(0.5, 1e6)


@settings(deadline=None)
@given(rates, st.integers(1, 3000), st.integers(0, 2**32 - 1))
def test_arrivals_never_fall_and_are_those_of_their_seed(
    qps: float, queries: int, seed: int
) -> None:
    one, other = (poisson(1, qps, queries, np.random.default_rng(seed)) for _ in range(2))
    assert one.arrivals is not None
    assert len(one.arrivals) == one.most_queries == queries
    assert one.arrivals.dtype == np.int64
    assert (np.diff(one.arrivals, prepend=0) >= 0).all()
    np.testing.assert_array_equal(one.arrivals, other.arrivals)
    assert one.most_ns is not None
    assert one.most_ns >= one.arrivals[-1] + int(queries * 1e9 / qps)


@settings(deadline=None, max_examples=30)
@given(st.floats(1, 1e5), st.integers(0, 2**32 - 1))
def test_gaps_are_exponential_with_the_mean_of_the_rate(qps: float, seed: int) -> None:
    """Mean and deviation of 20,000 gaps are each within 6 of their own standard errors."""
    schedule = poisson(1, qps, 20_000, np.random.default_rng(seed))
    assert schedule.arrivals is not None
    gaps = np.diff(schedule.arrivals, prepend=0) * qps / 1e9
    assert gaps.mean() == pytest.approx(1, abs=6 / np.sqrt(20_000))
    assert gaps.std() == pytest.approx(1, abs=6 * np.sqrt(2 / 20_000))


def test_a_seed_gives_its_arrivals_and_another_others() -> None:
    times = [
        run(server_at(100, seed=seed), FakeServer(service_ns=steady(MS)))[0].windows[0].scheduled
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(times[0], times[1])
    assert not np.array_equal(times[0], times[2])


def test_rows_meet_the_same_arrivals_and_every_round_has_its_own() -> None:
    fast, slow = FakeServer(service_ns=steady(MS)), FakeServer(service_ns=steady(5 * MS))
    served_rows = run(server_at(50), fast, slow)
    for one, other in zip(served_rows[0].windows, served_rows[1].windows, strict=True):
        np.testing.assert_array_equal(one.scheduled, other.scheduled)
    assert len({window.scheduled.tobytes() for window in served_rows[0].windows}) == WINDOWS


def test_windows_of_the_rows_are_in_turn() -> None:
    log: list[str] = []
    served_rows = run(
        SINGLE, *(FakeServer(service_ns=steady(MS), name=name, log=log) for name in "abc")
    )
    assert log[:3] == log[6:9] == ["a", "b", "c"]  # the warm-ups
    rounds = [tuple(log[i : i + 3]) for i in range(3, len(log), 6)]
    assert len(rounds) == WINDOWS
    assert {tuple(sorted(one)) for one in rounds} == {("a", "b", "c")}
    assert len(set(rounds)) > 1  # each in an order of its own
    for served_row in served_rows:
        assert [window.round for window in served_row.windows] == list(range(WINDOWS))
        assert [window.process for window in served_row.windows] == list(range(WINDOWS))


def test_rows_of_a_round_begin_on_the_same_core() -> None:
    one, other = (FakeServer(service_ns=steady(MS)) for _ in "ab")
    run(SINGLE, one, other)
    assert one.cores == other.cores
    assert one.cores[::2] == [None] * WINDOWS  # the warm-ups
    assert len({*one.cores[1::2]}) > 1


@pytest.mark.parametrize("seconds", [1.0, 10.0])
def test_the_time_of_a_row_is_split_into_its_windows(seconds: float) -> None:
    server = FakeServer(service_ns=steady(MS))
    run(SINGLE, server, procedure=Procedure(max_seconds=seconds, warmup=1))
    limits = {schedule.most_ns for schedule in server.schedules[1::2]}
    assert limits == {round(seconds * 1e9 / WINDOWS)}


def test_single_is_scheduled_when_it_is_started() -> None:
    (served_row,) = run(SINGLE, FakeServer(service_ns=steady(10 * MS)))
    for window in served_row.windows:
        assert window.qps is None
        assert (window.asked, window.answered) == (100, 100)
        np.testing.assert_array_equal(window.scheduled, window.started)


def test_offline_has_all_queries_from_the_start() -> None:
    (served_row,) = run(OFFLINE, FakeServer(service_ns=steady(10 * MS)))
    for window in served_row.windows:
        assert (window.asked, window.answered) == (100, 100)
        assert not window.scheduled.any()
        assert window.elapsed_ns == 1e9


@pytest.mark.parametrize("scenario", ["single", "offline"])
def test_clients_share_the_queries(scenario: str) -> None:
    traffic = Traffic(scenario=scenario, concurrency=4)
    (served_row,) = run(traffic, FakeServer(service_ns=steady(10 * MS)))
    assert [window.answered for window in served_row.windows] == [400] * WINDOWS
    assert served_row.served(traffic).concurrency == 4


def test_a_rate_gives_as_many_queries_as_its_windows_have_time_for() -> None:
    (served_row,) = run(server_at(50), FakeServer(service_ns=steady(MS)))
    assert [(window.asked, window.answered, window.qps) for window in served_row.windows] == (
        [(50, 50, 50)] * WINDOWS
    )


def test_a_rate_beyond_the_capacity_comes_to_an_end() -> None:
    """A thousand a second, served in 10 ms each: after twice the time of a window, a fifth."""
    (served_row,) = run(server_at(1000), FakeServer(service_ns=steady(10 * MS)))
    for window in served_row.windows:
        assert window.asked == 1000
        assert 190 <= window.answered <= 210
        assert window.elapsed_ns < 2.2e9


def test_a_window_holds_no_more_queries_than_are_stored() -> None:
    for traffic in (SINGLE, server_at(900_000)):
        (served_row,) = run(traffic, FakeServer(service_ns=steady(100)))
        assert served_row.windows[0].answered == MOST_QUERIES


def test_a_row_that_fails_keeps_its_windows_and_the_others_go_on() -> None:
    broken = FakeServer(service_ns=steady(MS), fails_at=3)
    served_rows = run(SINGLE, broken, FakeServer(service_ns=steady(MS)))
    assert isinstance(served_rows[0].failure, WorkerError)
    assert [len(served_row.windows) for served_row in served_rows] == [1, WINDOWS]
    assert len(broken.schedules) == 4


@pytest.mark.parametrize("clients", [1, 4])
def test_a_warm_up_of_so_many_runs_is_that_of_each_client(clients: int) -> None:
    traffic = Traffic(scenario="single", concurrency=clients)
    server = FakeServer(service_ns=steady(MS))
    (served_row,) = run(traffic, server, procedure=Procedure(warmup=7, max_seconds=1))
    served = served_row.served(traffic)
    assert (len(served.warmup), served.settled) == (7 * clients * WINDOWS, True)
    assert server.schedules[0].arrivals is None


def test_the_warm_up_goes_on_until_it_settles() -> None:
    def cooling(window: int, query: int) -> int:
        return MS * (30 - 5 * min(window, 4))

    (served_row,) = run(SINGLE, FakeServer(service_ns=cooling), procedure=Procedure(max_seconds=1))
    assert served_row.served(SINGLE).settled
    assert [int(chunk[0]) // MS for chunk in served_row.warmups[0].chunks][:5] == [
        30,
        25,
        20,
        15,
        10,
    ]
    assert {
        int(service) for service in served_row.windows[0].finished - served_row.windows[0].started
    } == ({10 * MS})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"concurrency": 0}, "Got --concurrency 0"),
        ({"concurrency": 100_000}, "Got --concurrency 100000"),
        ({"qps": 5.0}, "scenario single"),
        ({"find_qps": True}, "scenario single"),
        ({"p99_ms": 5.0}, "--p99-ms without --find-qps"),
        ({"scenario": "server"}, "needs a rate"),
        ({"scenario": "server", "p99_ms": 5.0}, "needs a rate"),
        ({"scenario": "server", "find_qps": True}, "without the latency"),
        ({"scenario": "server", "qps": 5.0, "find_qps": True, "p99_ms": 5.0}, "together"),
        ({"scenario": "server", "qps": 5.0, "p99_ms": 5.0}, "--p99-ms without --find-qps"),
        *(
            ({"scenario": "server", "qps": bad}, "Got --qps")
            for bad in (0.0, -1.0, float("nan"), float("inf"), 1e12)
        ),
        *(
            ({"scenario": "server", "find_qps": True, "p99_ms": bad}, "Got --p99-ms")
            for bad in (0.0, -1.0, float("nan"), float("inf"))
        ),
    ],
)
def test_traffic_that_cannot_be_meant_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        Traffic(**{"scenario": "single", **options})
    assert caught.value.hint


def test_a_scenario_that_there_is_not_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'servr'") as caught:
        Traffic(scenario="servr")
    assert "Did you mean 'server'?" in caught.value.hint


@pytest.mark.parametrize("procedure", [Procedure(runs=100), Procedure(target_ci=0.05)])
def test_a_procedure_of_scopes_is_refused(procedure: Procedure) -> None:
    with pytest.raises(UsageError, match="--runs or --target-ci"):
        SINGLE.check(procedure)


def test_too_few_queries_for_a_median_are_refused() -> None:
    with pytest.raises(UsageError, match="fewer than 11") as caught:
        server_at(0.5).check(Procedure(max_seconds=10))
    assert "--max-seconds 22" in caught.value.hint
    server_at(0.5).check(Procedure(max_seconds=22))
    SINGLE.check(Procedure(max_seconds=0.1))

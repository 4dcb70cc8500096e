"""The search for the largest rate, on simulated servers of known capacity."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.measuring.queues import FakeServer, steady
from toolkit.core.errors import UsageError, WorkerError
from toolkit.measuring.figures.statistics import fewest_samples
from toolkit.measuring.load_test.max_qps import WITHIN, Search, find_rates
from toolkit.measuring.load_test.queueing import holds
from toolkit.measuring.load_test.scenarios import MOST_QPS, MOST_QUERIES, ServedRow, Traffic
from toolkit.measuring.load_test.summary import served_figures
from toolkit.measuring.timing.engine import Procedure

MS = 1_000_000
FEWEST = fewest_samples(99.0)


@given(st.floats(0.01, MOST_QPS), st.floats(0.01, MOST_QPS), st.floats(1e-6, 1.0))
def test_the_search_closes_in_on_the_rate_that_holds(
    start: float, true: float, share: float
) -> None:
    """With rates at or below `true` holding: it lies between what is found, or beyond the ends."""
    search = Search(rate=start, floor=start * share)
    tries = 0
    while search.rate is not None:
        assert search.floor <= search.rate <= MOST_QPS
        search.note(search.rate <= true)
        tries += 1
    assert tries <= 60
    if search.held is None:
        assert true < search.failed < 2 * search.floor
    elif search.failed is None:
        assert search.held <= true
        assert search.held > MOST_QPS / 2
    else:
        assert search.held <= true < search.failed <= WITHIN * search.held


def find(
    *servers: FakeServer, p99_ms: float, clients: int = 1, max_seconds: float = 10.0
) -> tuple[list[ServedRow], Traffic]:
    traffic = Traffic(scenario="server", concurrency=clients, find_qps=True, p99_ms=p99_ms)
    served_rows = [ServedRow(server=server) for server in servers]
    procedure = Procedure(max_seconds=max_seconds, warmup=1)
    find_rates(served_rows, traffic, procedure, lambda done, total, detail: None)
    return served_rows, traffic


def found(served_row: ServedRow, traffic: Traffic) -> dict:
    return served_figures(served_row.served(traffic), 1, (90.0, 99.0))["search"]


@pytest.mark.parametrize(("clients", "p99_ms"), [(1, 5.0), (1, 100.0), (2, 5.0), (8, 5.0)])
def test_the_rate_found_holds_and_the_next_does_not(clients: int, p99_ms: float) -> None:
    (served_row,), traffic = find(FakeServer(service_ns=steady(MS)), p99_ms=p99_ms, clients=clients)
    assert served_row.failure is None
    search = found(served_row, traffic)
    held, failed = search["largest_held_qps"], search["smallest_not_held_qps"]
    assert held < failed <= WITHIN * held
    # Of the capacity of so many clients at 1 ms. A queue of finite length can be beyond it.
    assert 0.5 < held / (1000 * clients) < 1.2
    for window in served_row.windows:
        assert holds(window, round(p99_ms * MS)) is (window.qps <= held)
    assert [one["held"] for one in search["tries"]] == [w.qps <= held for w in served_row.windows]


def test_a_tighter_bound_has_a_lower_rate() -> None:
    rates = []
    for p99_ms in (2.5, 4.0, 8.0, 50.0):
        (served_row,), traffic = find(FakeServer(service_ns=steady(MS)), p99_ms=p99_ms)
        rates.append(found(served_row, traffic)["largest_held_qps"])
    assert rates == sorted(set(rates))


def test_the_figures_are_those_of_the_rate_that_was_found() -> None:
    (served_row,), traffic = find(FakeServer(service_ns=steady(MS)), p99_ms=5.0)
    figures = served_figures(served_row.served(traffic), 3, (99.0,))
    assert figures["asked_qps"] == figures["search"]["largest_held_qps"]
    assert figures["latency"]["p99_early_stopping_ns"] <= 5 * MS
    assert figures["samples_per_second"] == 3 * figures["achieved_qps"]
    assert figures["windows"] == 1


def test_a_bound_below_the_service_time_is_given_up_before_any_rate() -> None:
    (served_row,), traffic = find(FakeServer(service_ns=steady(2 * MS)), p99_ms=1.0)
    assert served_row.windows == []
    search = found(served_row, traffic)
    assert (search["largest_held_qps"], search["smallest_not_held_qps"]) == (None, None)
    assert search["alone_p99_ns"] == 2 * MS
    assert search["reason"] == (
        "none: served alone, a query takes 2 ms and its p99 is 2 ms, above 1 ms"
    )


def test_a_tail_that_is_there_at_any_rate_is_given_up() -> None:
    """At any rate one query in ten takes long, though none does when one client serves alone."""

    def tailed(window: int, query: int) -> int:
        return MS if window == 1 or query % 10 else 50 * MS

    (served_row,), traffic = find(FakeServer(service_ns=tailed), p99_ms=20.0)
    search = found(served_row, traffic)
    assert served_row.failure is None
    assert len(served_row.windows) > 1
    assert search["largest_held_qps"] is None
    assert search["smallest_not_held_qps"] == min(w.qps for w in served_row.windows)
    assert "even at" in search["reason"]
    figures = served_figures(served_row.served(traffic), 1, (99.0,))
    assert figures["asked_qps"] is figures["samples_per_second"] is None


def test_every_try_has_the_queries_that_a_p99_needs_and_no_more_than_are_stored() -> None:
    for service_ns in (5_000, MS, 30 * MS):
        (served_row,), _ = find(FakeServer(service_ns=steady(service_ns)), p99_ms=1000.0)
        assert served_row.alone is not None
        assert FEWEST <= served_row.alone.answered <= MOST_QUERIES
        assert all(FEWEST <= window.asked <= MOST_QUERIES for window in served_row.windows)


def test_one_client_serves_alone_first() -> None:
    server = FakeServer(service_ns=steady(MS))
    find(server, p99_ms=5.0, clients=4)
    assert [schedule.clients for schedule in server.schedules[:3]] == [4, 1, 4]
    assert server.schedules[1].arrivals is None


def test_a_query_too_slow_to_be_judged_in_time_is_refused_with_the_time_it_needs() -> None:
    (served_row,), _ = find(FakeServer(service_ns=steady(200 * MS)), p99_ms=5000.0)
    assert isinstance(served_row.failure, UsageError)
    assert "--max-seconds 265" in served_row.failure.hint
    (served_row,), _ = find(FakeServer(service_ns=steady(200 * MS)), p99_ms=5000.0, max_seconds=265)
    assert served_row.failure is None
    assert served_row.windows


def test_tries_of_the_rows_are_in_turn_and_a_failure_costs_its_row() -> None:
    log: list[str] = []
    sound = FakeServer(service_ns=steady(MS), name="s", log=log)
    broken = FakeServer(service_ns=steady(MS), name="b", log=log, fails_at=3)
    served_rows, traffic = find(sound, broken, p99_ms=5.0)
    assert [sorted(log[i : i + 2]) for i in range(0, 8, 2)] == [["b", "s"]] * 4
    assert set(log[8:]) == {"s"}  # after warm-up, alone, and two tries of both
    assert isinstance(served_rows[1].failure, WorkerError)
    assert len(served_rows[1].windows) == 1
    assert found(served_rows[0], traffic)["largest_held_qps"] is not None

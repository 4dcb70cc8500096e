"""Latency, waiting and lateness of windows that were made by hand."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.measuring.windows import MS, window
from toolkit.measuring.figures.statistics import fewest_samples
from toolkit.measuring.load_test.queueing import (
    estimated_p99,
    holds,
    latencies,
    lateness,
    services,
    waiting_share,
)

FEWEST = fewest_samples(99.0)


def test_latency_is_from_when_a_query_was_due() -> None:
    one = window(scheduled=[0, 1, 2], started=[0, 3, 6], finished=[3, 6, 7])
    assert latencies([one]).tolist() == [3 * MS, 5 * MS, 5 * MS]
    assert services([one]).tolist() == [3 * MS, 3 * MS, 1 * MS]
    assert waiting_share([one]) == pytest.approx(6 / 13)


def test_windows_are_pooled() -> None:
    one = window(scheduled=[0], started=[1], finished=[2])
    other = window(scheduled=[5, 6], started=[5, 6], finished=[6, 7])
    assert latencies([one, other]).tolist() == [2 * MS, MS, MS]
    assert waiting_share([one, other]) == pytest.approx(1 / 4)


def test_what_was_not_answered_took_infinitely_long() -> None:
    one = window(scheduled=[0, 1, 2], started=[0], finished=[3])
    assert latencies([one]).tolist() == [3 * MS, np.inf, np.inf]
    assert services([one]).tolist() == [3 * MS]


def test_nothing_says_nothing() -> None:
    assert len(latencies([])) == len(services([])) == len(lateness([], 2)) == 0
    assert waiting_share([]) is None
    assert estimated_p99([]) is None


def test_lateness_is_that_of_clients_who_were_idle() -> None:
    """The first is begun 1 late; the second finds the client busy; the third it idle, 2 late."""
    one = window(scheduled=[0, 1, 9], started=[1, 3, 11], finished=[3, 6, 12])
    assert lateness([one], 1).tolist() == [MS, 2 * MS]


def test_a_second_client_is_idle_while_the_first_is_busy() -> None:
    one = window(scheduled=[0, 1, 2], started=[0, 2, 5], finished=[5, 8, 9])
    assert lateness([one], 2).tolist() == [0, MS]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 100), st.integers(0, 20)), max_size=40),
    st.integers(1, 5),
)
def test_a_simulated_harness_s_lateness_is_found(
    queries: list[tuple[int, int, int]], clients: int
) -> None:
    """Of each query: the gap before it, its service, and how late an idle client begins it."""
    free, now = [0] * clients, 0
    scheduled, started, finished, expected = [], [], [], []
    for gap, service, late in queries:
        now += gap
        since = heapq.heappop(free)
        idle = since <= now
        began = now + late if idle else since
        heapq.heappush(free, began + service)
        scheduled.append(now)
        started.append(began)
        finished.append(began + service)
        if idle:
            expected.append(late * MS)
    one = window(scheduled=scheduled, started=started, finished=finished)
    assert lateness([one], clients).tolist() == expected


def steady(latency_ms: float, count: int, slow: int = 0) -> dict[str, list[float]]:
    """So many queries, the last of them ten times as slow."""
    took = [latency_ms] * (count - slow) + [10 * latency_ms] * slow
    due = [20.0 * i for i in range(count)]
    return {
        "scheduled": due,
        "started": due,
        "finished": [a + b for a, b in zip(due, took, strict=True)],
    }


@pytest.mark.parametrize(
    ("bound_ms", "slow", "held"),
    [(1.0, 0, True), (0.9, 0, False), (5.0, 1, False), (10.0, 1, True)],
)
def test_a_rate_holds_when_the_estimated_p99_is_within(
    bound_ms: float, slow: int, held: bool
) -> None:
    """At the fewest queries, the estimate is the slowest of all."""
    assert holds(window(**steady(1.0, FEWEST, slow)), round(bound_ms * MS)) is held


def test_more_queries_let_a_slow_one_be_discarded() -> None:
    assert holds(window(**steady(1.0, 3 * FEWEST, slow=1)), MS)


def test_a_rate_does_not_hold_without_every_answer_or_with_too_few() -> None:
    assert not holds(window(**steady(1.0, FEWEST - 1)), MS)
    times = steady(1.0, 3 * FEWEST)
    assert holds(window(**times), MS)
    times["scheduled"].append(times["scheduled"][-1])
    assert not holds(window(**times), MS)

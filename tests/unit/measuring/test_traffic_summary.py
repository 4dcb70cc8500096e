"""The figures of load scenarios whose windows were made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.measuring.windows import MS, window
from toolkit.core.measurement import Row, Status
from toolkit.core.queries import Scenario, Served, Window
from toolkit.measuring.figures.statistics import early_stopping
from toolkit.measuring.load_test.summary import ratio_of_served, served_figures
from toolkit.measuring.load_test.warnings import traffic_warnings

QS = (90.0, 99.0, 99.9)


def served(
    *windows: Window, scenario: Scenario = Scenario.SERVER, settled: bool = True, **more: object
) -> Served:
    return Served(
        scenario=scenario,
        concurrency=1,
        warmup=np.array([MS] * 3, np.int64),
        settled=settled,
        windows=windows,
        **more,
    )


def random_window(
    number: int, queries: int = 200, scale: float = 1.0, *, late: float = 0.0, asked: int = 0
) -> Window:
    """A query each 10 ms, its service about `scale` ms, begun `late` ms after it was due."""
    took = scale * (1 + np.random.default_rng(number).exponential(0.1, queries))
    due = np.arange(max(queries, asked)) * 10.0
    began = due[:queries] + late
    return window(
        scheduled=due, started=began, finished=began + took, number=number, qps=100.0
    )  # fmt: skip


def closed_window(number: int, queries: int = 200, scale: float = 1.0) -> Window:
    """A query after the other, each about `scale` ms."""
    took = scale * (1 + np.random.default_rng(number).exponential(0.1, queries))
    finished = np.cumsum(took)
    began = finished - took
    return window(scheduled=began, started=began, finished=finished, number=number)


def offline_window(number: int, queries: int = 200, scale: float = 1.0) -> Window:
    one = closed_window(number, queries, scale)
    return window(
        scheduled=[0.0] * queries,
        started=one.started / MS,
        finished=one.finished / MS,
        number=number,
    )


FIVE = range(5)


def test_latencies_of_all_windows_are_pooled_before_the_percentiles() -> None:
    windows = [random_window(number, scale=1 + number) for number in FIVE]
    pooled = np.concatenate([w.finished - w.scheduled for w in windows])
    latency = served_figures(served(*windows), 1, QS)["latency"]
    assert latency["median_ns"] == np.median(pooled)
    assert (latency["min_ns"], latency["max_ns"]) == (pooled.min(), pooled.max())
    assert latency["mean_ns"] == pytest.approx(pooled.mean())
    assert latency["p90_ns"] == np.percentile(pooled, 90)
    assert latency["p99_ns"] == np.percentile(pooled, 99)
    assert latency["p99_9_ns"] is None  # 1,000 are too few
    assert latency["p99_early_stopping_ns"] == early_stopping(pooled, 99.0)


def test_rates_are_of_all_windows_together() -> None:
    windows = [random_window(0, 100), random_window(1, 300)]
    figures = served_figures(served(*windows), 8, QS)
    seconds = sum(w.finished.max() for w in windows) / 1e9
    assert figures["queries"] == {"asked": 400, "answered": 400}
    assert figures["seconds"] == pytest.approx(seconds)
    assert figures["asked_qps"] == 100
    assert figures["achieved_qps"] == pytest.approx(400 / seconds)
    assert figures["samples_per_second"] == pytest.approx(8 * 400 / seconds)
    assert figures["held"] is True


def test_waiting_and_lateness_are_told_from_service() -> None:
    windows = [random_window(number, late=0.5) for number in FIVE]
    figures = served_figures(served(*windows), 1, QS)
    services = np.concatenate([w.finished - w.started for w in windows])
    assert figures["service_median_ns"] == np.median(services)
    assert figures["lateness_median_ns"] == pytest.approx(0.5 * MS)
    assert figures["waiting_share"] == pytest.approx(0.5 / (0.5 + services.mean() / MS))


def test_percentiles_among_the_unanswered_are_unknown() -> None:
    """Of 2,000 queries 30 were not answered: the p90 stands, the p99 is who knows where."""
    figures = served_figures(served(random_window(0, 1970, asked=2000)), 1, QS)
    assert figures["queries"] == {"asked": 2000, "answered": 1970}
    assert figures["held"] is False
    latency = figures["latency"]
    assert latency["p90_ns"] > latency["median_ns"] > 0
    unknown = ("p99_ns", "p99_early_stopping_ns", "max_ns", "mean_ns")
    assert [latency[name] for name in unknown] == [None] * 4


def test_offline_has_samples_a_second_and_no_latency() -> None:
    figures = served_figures(
        served(*(offline_window(n) for n in FIVE), scenario=Scenario.OFFLINE), 16, QS
    )
    assert figures["latency"] is None
    assert figures["waiting_share"] is figures["lateness_median_ns"] is figures["held"] is None
    assert figures["samples_per_second"] == pytest.approx(16 * 1000 / figures["seconds"])


def test_single_waits_for_nobody() -> None:
    figures = served_figures(
        served(*(closed_window(n) for n in FIVE), scenario=Scenario.SINGLE), 1, QS
    )
    assert figures["latency"]["median_ns"] == figures["service_median_ns"]
    assert figures["waiting_share"] is figures["lateness_median_ns"] is figures["asked_qps"] is None


@pytest.mark.parametrize("scenario", Scenario)
@pytest.mark.parametrize("windows", [(), (window(scheduled=[1, 2], started=[], finished=[]),)])
def test_no_answers_give_no_figures_and_no_error(
    scenario: Scenario, windows: tuple[Window, ...]
) -> None:
    figures = served_figures(served(*windows, scenario=scenario), 1, QS)
    assert figures["achieved_qps"] is figures["samples_per_second"] is None
    if scenario is not Scenario.OFFLINE:
        assert set(figures["latency"].values()) == {None}


MAKERS = {
    Scenario.SINGLE: closed_window,
    Scenario.SERVER: random_window,
    Scenario.OFFLINE: offline_window,
}


@pytest.mark.parametrize("scenario", Scenario)
def test_a_ratio_is_paired_by_window(scenario: Scenario) -> None:
    """A drift that hits both rows of a round alike is not seen in it."""
    make, drift = MAKERS[scenario], (1, 5, 2, 4, 3)
    row = served(*(make(n, 200, 2.0 * k) for n, k in enumerate(drift)), scenario=scenario)
    baseline = served(*(make(n, 200, 1.0 * k) for n, k in enumerate(drift)), scenario=scenario)
    compared = ratio_of_served(row, baseline)
    assert compared is not None
    assert (compared.value, *compared.interval) == pytest.approx((2, 2, 2), rel=1e-4)
    assert compared.verdict == "SLOWER"


def test_offline_the_ratio_is_of_the_time_that_all_take_together() -> None:
    """Two clients that each take as long as one have twice the samples a second."""

    def row(clients: int) -> Served:
        finished = np.arange(100) // clients + 1.0
        windows = (
            window(scheduled=[0.0] * 100, started=finished - 1, finished=finished, number=number)
            for number in FIVE
        )
        return served(*windows, scenario=Scenario.OFFLINE)

    compared = ratio_of_served(row(2), row(1))
    assert compared is not None
    assert compared.value == pytest.approx(0.5)


def test_there_is_no_ratio_where_it_means_nothing() -> None:
    whole = served(*(random_window(n) for n in FIVE))
    assert ratio_of_served(whole, whole) is not None
    cut = served(*(random_window(n, asked=201) for n in FIVE))
    empty = served(*(window(scheduled=[], started=[], finished=[]) for _ in FIVE))
    searched = served(*whole.windows, p99_bound_ns=10 * MS)
    for other in (cut, empty, searched, served()):
        assert ratio_of_served(whole, other) is None
        assert ratio_of_served(other, whole) is None


def test_one_window_has_a_ratio_without_an_interval() -> None:
    compared = ratio_of_served(served(random_window(0, scale=2)), served(random_window(0)))
    assert compared is not None
    assert compared.value == pytest.approx(2, rel=0.01)
    assert compared.interval is None


def test_percentiles_have_intervals_over_processes() -> None:
    latency = served_figures(served(*(random_window(n) for n in FIVE)), 1, QS)["latency"]
    for name in ("median", "p90", "p99"):
        low, high = latency["ci95_ns" if name == "median" else f"{name}_ci95_ns"]
        assert low <= latency[f"{name}_ns"] <= high
    unanswered = served(*(random_window(n, asked=201) for n in FIVE))
    assert served_figures(unanswered, 1, QS)["latency"]["p90_ci95_ns"] is None


def row_of(one: Served | None) -> Row:
    return Row(
        runtime="torch",
        artifact="a",
        artifact_digest="d",
        batch=2,
        status=Status.OK,
        precision_requested="float32",
        served=one,
    )


def test_a_sound_row_is_not_warned_of() -> None:
    sound = served(*(random_window(n) for n in FIVE))
    assert traffic_warnings([row_of(None), row_of(sound), row_of(served())]) == []


@pytest.mark.parametrize(
    ("doubtful", "says"),
    [
        (served(random_window(0, 1000), settled=False), "did not settle"),
        (
            served(random_window(0, 900, asked=1000)),
            "the rate was not held: torch answered 900 of 1,000 in 9.0 s",
        ),
        (served(random_window(0, 300)), "too few queries for a p99, which needs 662: torch (300)"),
        (served(random_window(0, 1000, late=0.2)), "begun late by more than 5%"),
    ],
)
def test_a_doubt_is_said_with_the_row_and_where(doubtful: Served, says: str) -> None:
    (warning,) = traffic_warnings([row_of(doubtful)])
    assert warning.startswith("server, batch 2: ")
    assert says in warning
    assert "torch" in warning


def test_rows_with_the_same_doubt_share_a_line() -> None:
    few = row_of(served(random_window(0, 300)))
    (warning,) = traffic_warnings([few, few])
    assert "torch (300), torch (300)" in warning


def test_a_closed_loop_is_never_late() -> None:
    assert traffic_warnings([row_of(served(closed_window(0, 1000), scenario=Scenario.SINGLE))]) == (
        []
    )
    one = served(offline_window(0, 20), scenario=Scenario.OFFLINE)
    assert traffic_warnings([row_of(one)]) == []

"""Percentiles, intervals and ratios: against SciPy, and by simulated experiments."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import quantile_test, sem, t, ttest_ind

from toolkit.measuring.figures.statistics import (
    Interval,
    Ratio,
    Remedy,
    Verdict,
    fewest_samples,
    interval_over,
    median_interval,
    paired_ratio,
    percentile,
    percentile_interval,
    reach,
    relative_reach,
    rounds_interval,
    spread_of,
    typical_median,
    unpaired_ratio,
)
from toolkit.measuring.timing.engine import STOPPING_PROCESSES

MS = 1_000_000
Processes = list[np.ndarray]


def test_a_median_needs_one_sample() -> None:
    assert percentile(np.array([3, 5]), 50.0) == 4
    assert percentile(np.empty(0), 50.0) is None


@pytest.mark.parametrize(("q", "fewest"), [(90.0, 64), (95.0, 130), (99.0, 662), (99.9, 6636)])
def test_a_percentile_needs_its_number_of_samples(q: float, fewest: int) -> None:
    assert fewest_samples(q) == fewest_samples(100 - q) == fewest
    samples = np.random.default_rng(0).integers(1, MS, fewest)
    assert percentile(samples[:-1], q) is None
    assert percentile(samples, q) == np.percentile(samples, q)


def rounds_of(
    rng: np.random.Generator,
    processes: int,
    *,
    between: float,
    correlation: float = 0.0,
    heavy: bool = False,
    rounds: int = 12,
    noise: float = 0.03,
    true: float = 1.0,
) -> Processes:
    """Values of rounds, `between` the deviation of processes and `noise` that of rounds.

    Rounds of a process are an autoregressive sequence with `correlation`. With `heavy`, its
    innovations have Student's t distribution with three degrees of freedom.
    """
    draw: Callable[..., np.ndarray] = rng.standard_normal
    if heavy:
        draw = lambda size: rng.standard_t(3, size)  # noqa: E731
    found = []
    for _ in range(processes):
        values = draw(size=rounds)
        for i in range(1, rounds):
            values[i] = correlation * values[i - 1] + np.sqrt(1 - correlation**2) * values[i]
        found.append(true * np.exp(between * rng.standard_normal() + noise * values))
    return found


CONDITIONS = [
    pytest.param(
        {"between": between, "correlation": correlation, "heavy": heavy},
        (2, 3, 6, 12)[(number + number // 4) % 4],
        id=f"{between:.1%}-{correlation}-{'heavy' if heavy else 'normal'}",
    )
    for number, (between, correlation, heavy) in enumerate(
        (between, correlation, heavy)
        for heavy in (False, True)
        for correlation in (0.0, 0.5, 0.9)
        for between in (0.0, 0.005, 0.01, 0.02)
    )
]
TRIALS = 500


@pytest.mark.parametrize(("condition", "processes"), CONDITIONS)
def test_the_interval_of_a_ratio_covers(condition: dict[str, float], processes: int) -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(TRIALS):
        found = paired_ratio(rounds_of(rng, processes, true=1.05, **condition))
        assert found is not None
        assert found.interval is not None
        inside += found.interval[0] <= 1.05 <= found.interval[1]
    assert 0.92 <= inside / TRIALS <= 0.99


@pytest.mark.parametrize("drift", [0.0, 0.03])
@pytest.mark.parametrize("processes", [3, 6, 10])
def test_a_drift_of_the_machine_cancels_in_a_ratio(processes: int, drift: float) -> None:
    """Both rows of a round meet the same machine, which wanders by `drift` per round."""
    rng = np.random.default_rng(1)
    inside, widths = 0, []
    for _ in range(TRIALS):
        machine = np.exp(np.cumsum(drift * rng.standard_normal((processes, 12)).ravel()))
        both = [
            np.concatenate(rounds_of(rng, processes, between=0.01, true=true)) * machine
            for true in (1.05, 1.0)
        ]
        found = paired_ratio(np.split(both[0] / both[1], processes))
        assert found is not None
        assert found.interval is not None
        inside += found.interval[0] <= 1.05 <= found.interval[1]
        widths.append(found.interval[1] - found.interval[0])
    assert 0.92 <= inside / TRIALS <= 0.99
    assert np.median(widths) < 0.12


@pytest.mark.parametrize("sizes", [(2, 2), (3, 10), (10, 10)])
@pytest.mark.parametrize("between", [(0.01, 0.01), (0.005, 0.03)])
def test_the_interval_of_rows_measured_apart_covers(
    sizes: tuple[int, int], between: tuple[float, float]
) -> None:
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(TRIALS):
        found = unpaired_ratio(
            *(
                rounds_of(rng, size, between=deviation, rounds=20)
                for size, deviation in zip(sizes, between, strict=True)
            )
        )
        assert found is not None
        assert found.interval is not None
        inside += found.interval[0] <= 1 <= found.interval[1]
    assert 0.92 <= inside / TRIALS <= 0.99


def unequal(rng: np.random.Generator, processes: int, **deviations: float) -> Processes:
    """Samples of processes, of which the first third has fifteen times as many as the others."""
    return [
        rounds_of(rng, 1, rounds=600 if number < processes / 3 else 40, **deviations)[0]
        for number in range(processes)
    ]


@pytest.mark.parametrize("processes", [2, 4, 10])
@pytest.mark.parametrize(("between", "noise"), [(0.02, 0.03), (0.05, 0.01), (0.0, 0.03)])
def test_the_interval_of_a_median_covers(processes: int, between: float, noise: float) -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(TRIALS):
        interval = median_interval(unequal(rng, processes, between=between, noise=noise))
        assert interval is not None
        inside += interval[0] <= 1 <= interval[1]
    assert 0.92 <= inside / TRIALS <= 0.99


@pytest.mark.parametrize(
    ("q", "processes", "samples"), [(90.0, 4, 200), (90.0, 10, 120), (99.0, 10, 120)]
)
def test_the_interval_of_a_percentile_covers_where_runs_differ_most(
    q: float, processes: int, samples: int
) -> None:
    rng = np.random.default_rng(3)
    many = np.concatenate(rounds_of(rng, 5000, between=0.005, rounds=200))
    true = float(np.percentile(many, q))
    drawn = (rounds_of(rng, processes, between=0.005, rounds=samples) for _ in range(300))
    intervals = [interval for rows in drawn if (interval := percentile_interval(rows, q))]
    assert len(intervals) >= 150  # of the others, a bound was beyond all samples
    inside = sum(low <= true <= high for low, high in intervals)
    assert 0.92 <= inside / len(intervals) <= 0.99


def test_stopping_at_a_narrow_interval_keeps_its_coverage() -> None:
    """The rule of the engine: from STOPPING_PROCESSES on, when the interval is within 1 %."""
    rng = np.random.default_rng(4)
    for deviation in (0.008, 0.012, 0.015, 0.02):
        inside = 0
        for _ in range(1000):
            figures = np.exp(deviation * rng.standard_normal(10))
            for count in range(STOPPING_PROCESSES, 11):
                interval = interval_over(figures[:count], 0.95)
                assert interval is not None
                if reach(interval, float(np.sqrt(interval[0] * interval[1]))) <= 0.01:
                    break
            inside += interval[0] <= 1 <= interval[1]
        assert inside >= 920


def test_the_interval_over_processes_is_students() -> None:
    figures = np.random.default_rng(4).gamma(9, MS, 7)
    logs = np.log(figures)
    for confidence in (0.95, 0.99):
        theirs = t.interval(confidence, len(logs) - 1, logs.mean(), sem(logs))
        assert interval_over(figures, confidence) == pytest.approx(np.exp(theirs))


def test_the_interval_of_rows_measured_apart_is_welchs() -> None:
    rng = np.random.default_rng(5)
    row = [rng.gamma(9, MS, 30) for _ in range(4)]
    baseline = [2 * rng.gamma(5, MS, 30) for _ in range(9)]
    found = unpaired_ratio(row, baseline)
    assert found is not None
    logs = [np.log([np.median(one) for one in side]) for side in (row, baseline)]
    test = ttest_ind(*logs, equal_var=False)
    assert found.value == pytest.approx(np.exp(logs[0].mean() - logs[1].mean()))
    for interval, confidence in ((found.interval, 0.95), (found.wide, 0.99)):
        theirs = test.confidence_interval(confidence)
        assert interval == pytest.approx((np.exp(theirs.low), np.exp(theirs.high)))


def test_a_paired_ratio_is_that_of_the_medians_of_processes() -> None:
    processes = rounds_of(np.random.default_rng(6), 5, between=0.02, true=2.0)
    found = paired_ratio(processes)
    assert found is not None
    medians = [np.median(rounds) for rounds in processes]
    assert found.processes == pytest.approx(medians)
    assert found.value == pytest.approx(np.exp(np.mean(np.log(medians))))
    assert found.interval == interval_over(np.array(medians), 0.95)
    assert found.wide == interval_over(np.array(medians), 0.99)


def test_equal_processes_give_an_interval_without_width() -> None:
    found = paired_ratio([np.full(5, 1.25)] * 3)
    assert found is not None
    assert found.interval == pytest.approx((1.25, 1.25))
    found = unpaired_ratio([np.full(5, 1.25)] * 3, [np.full(5, 1.0)] * 3)
    assert found is not None
    assert found.interval == (1.25, 1.25)


def test_one_process_gives_a_value_and_no_interval() -> None:
    rounds = np.full(20, 1.5)
    for found in (paired_ratio([rounds]), unpaired_ratio([rounds], [rounds] * 5)):
        assert found is not None
        assert found.interval is None
        assert found.wide is None
        assert found.verdict == "UNCLEAR"
        assert not found.is_above(0.1)
    assert median_interval([rounds]) is None


def test_processes_that_differ_beyond_measure_give_finite_bounds() -> None:
    found = paired_ratio([np.full(5, 1e-30), np.full(5, 1e30)])
    assert found is not None
    assert found.wide is not None
    assert 0 < found.wide[0] < found.wide[1] < np.inf


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_times_that_are_not_positive_give_nothing(bad: float) -> None:
    sound, broken = [np.full(20, 1.0)] * 3, [np.full(20, 1.0), np.full(20, bad)]
    assert paired_ratio(broken) is None
    assert unpaired_ratio(sound, broken) is None
    assert unpaired_ratio(broken, sound) is None
    assert median_interval(broken) is None
    assert spread_of(broken) is None


def test_the_interval_of_a_percentile_is_unknown_beyond_all_samples() -> None:
    rng = np.random.default_rng(7)
    many = [rng.gamma(9, 1, 400) for _ in range(6)]
    low, high = percentile_interval(many, 99.0) or (0, 0)
    assert low <= np.percentile(np.concatenate(many), 99) <= high
    assert percentile_interval([*many[:5], 3 * rng.gamma(9, 1, 400)], 99.0) is None
    assert percentile_interval([rng.gamma(9, 1, 5) for _ in range(2)], 90.0) is None


def test_processes_weigh_the_same_in_a_median() -> None:
    assert typical_median([np.full(1000, 100.0), np.full(3, 400.0)]) == pytest.approx(200)
    assert typical_median([np.zeros(3), np.full(5, 400.0)]) == 400
    assert typical_median([np.empty(0)]) is None
    processes = rounds_of(np.random.default_rng(8), 4, between=0.05, rounds=31)
    low, high = median_interval(processes) or (0, 0)
    assert np.sqrt(low * high) == pytest.approx(typical_median(processes))


@pytest.mark.parametrize(
    ("between", "noise", "remedy"),
    [(0.05, 0.01, Remedy.PROCESSES), (0.001, 0.05, Remedy.TIME)],
)
def test_the_remedy_is_for_the_level_that_dominates(
    between: float, noise: float, remedy: Remedy
) -> None:
    rng = np.random.default_rng(9)
    found = spread_of(rounds_of(rng, 10, between=between, noise=noise, rounds=30))
    assert found is not None
    assert found.remedy is remedy
    error = noise * np.sqrt(np.pi / 2 / 30)  # of the median of 30 normal values
    assert found.total == pytest.approx(np.hypot(between, error), rel=0.6)
    assert found.rounds == pytest.approx(error, rel=0.4)


def test_few_processes_or_rounds_do_not_tell_which_level_dominates() -> None:
    assert spread_of([np.ones(20)]) is None
    assert spread_of([np.ones(20), np.ones(4)]) is None


def test_the_stop_rule_asks_the_interval_of_the_rounds() -> None:
    rounds = np.random.default_rng(7).normal(100, 5, 40)
    low, high = rounds_interval(rounds) or (0, 0)
    median = float(np.median(rounds))
    assert relative_reach(rounds) == reach((low, high), median)
    assert relative_reach(rounds[:5]) == np.inf
    assert relative_reach(np.zeros(40)) == np.inf


def verdicts(true: float, trials: int, **condition: float) -> Iterator[Verdict]:
    rng = np.random.default_rng(10)
    for _ in range(trials):
        found = paired_ratio(rounds_of(rng, 10, true=true, **condition))
        assert found is not None
        yield found.verdict


@pytest.mark.parametrize("between", [0.0, 0.01, 0.05])
def test_a_row_against_itself_is_named_at_most_once_in_a_hundred(between: float) -> None:
    """Of 400, at most 9 (probability 0.992)."""
    named = [one for one in verdicts(1.0, 400, between=between) if one in ("FASTER", "SLOWER")]
    assert len(named) <= 9


@pytest.mark.parametrize(
    ("true", "least"), [(1.05, 95), (1 / 1.05, 95), (1.03, 80), (1 / 1.03, 80)]
)
def test_a_true_difference_is_found(true: float, least: int) -> None:
    expected = Verdict.SLOWER if true > 1 else Verdict.FASTER
    found = list(verdicts(true, 100, between=0.01, rounds=30))
    assert found.count(expected) >= least


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("interval", "wide", "verdict"),
    [
        ((0.90, 0.98), (0.89, 0.99), "FASTER"),
        ((0.90, 0.98), (0.89, 1.0), "UNCLEAR"),  # the wide interval decides
        ((1.02, 1.10), (1.005, 1.12), "SLOWER"),
        ((1.02, 1.10), (1.0, 1.12), "UNCLEAR"),
        ((0.99, 1.01), (0.98, 1.02), "SAME"),  # the bound of the band belongs to the band
        ((1.0, 1.0), (1.0, 1.0), "SAME"),
        ((1.004, 1.008), (1.003, 1.009), "SAME"),  # too small a difference to report
        ((1.004, 1.012), (1.003, 1.014), "SLOWER"),
        ((0.98, 1.005), (0.97, 1.01), "UNCLEAR"),
        ((NAN, NAN), (NAN, NAN), "UNCLEAR"),
        ((0.5, NAN), (0.5, NAN), "UNCLEAR"),
        ((-INF, INF), (-INF, INF), "UNCLEAR"),
        (None, None, "UNCLEAR"),
    ],
)
def test_the_verdict_follows_from_the_intervals(
    interval: Interval | None, wide: Interval | None, verdict: str
) -> None:
    assert Ratio(value=1.0, interval=interval, wide=wide).verdict == verdict


@pytest.mark.parametrize("count", [6, 7, 20, 61, 200])
def test_the_interval_of_rounds_is_that_of_scipys_quantile_test(count: int) -> None:
    values = np.random.default_rng(count).gamma(9, 1, count)
    theirs = quantile_test(values, q=0, p=0.5).confidence_interval(0.95)
    assert rounds_interval(values) == (theirs.low, theirs.high)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_few_rounds_have_no_interval(count: int) -> None:
    assert rounds_interval(np.ones(count)) is None


positive = st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=12).map(np.array)
processes = st.lists(positive, max_size=6)


@settings(deadline=None, max_examples=50)
@given(processes, st.sampled_from([0.125, 0.5, 4.0, 1024.0]))
def test_a_ratio_times_k_is_k_times_the_ratio(rounds: Processes, k: float) -> None:
    plain, other = paired_ratio(rounds), paired_ratio([k * one for one in rounds])
    assert (plain is None) == (other is None) == (not rounds)
    if plain is None or other is None:
        return
    assert other.value == pytest.approx(k * plain.value)
    assert (plain.interval is None) == (other.interval is None) == (len(rounds) < 2)
    if plain.interval is not None and other.interval is not None:
        assert other.interval == pytest.approx(tuple(k * bound for bound in plain.interval))
        assert plain.interval[0] <= plain.value * (1 + 1e-9)
        assert plain.value <= plain.interval[1] * (1 + 1e-9)

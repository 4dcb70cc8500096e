"""Percentiles, intervals and ratios: against SciPy, and by simulated experiments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, sem, t, wilcoxon

from toolkit.measuring.statistics import (
    Ratio,
    Verdict,
    centre,
    exact_interval,
    fewest_samples,
    median_interval,
    percentile,
    ratio,
    reach,
    relative_reach,
)

MS = 1_000_000
Blocks = list[np.ndarray]


def simulated(
    rng: np.random.Generator,
    drift: np.ndarray,
    *,
    level: float = MS,
    runs: int = 20,
    between: float = 0.02,
    within: float = 0.02,
) -> Blocks:
    """A block a round: `drift` is the machine's, `between` the block's own, `within` the run's.

    Runs scatter to the slow side, as latencies do; the median of a block is about its level.
    """
    blocks = []
    for machine in drift:
        own = level * machine * np.exp(rng.normal(0, between))
        blocks.append((own * (1 + rng.exponential(within, runs))).astype(np.int64))
    return blocks


def wandering(rng: np.random.Generator, rounds: int) -> np.ndarray:
    """A drift of the machine, 3 % from one round to the next."""
    return np.exp(np.cumsum(rng.normal(0, 0.03, rounds)))


def assert_close_interval(
    got: tuple[float, float] | None, low: float, high: float, share: float
) -> None:
    """Both bounds within `share` of the width of the expected interval."""
    assert got is not None
    assert got == pytest.approx((low, high), abs=share * (high - low))


@pytest.mark.parametrize(
    ("q", "fewest"), [(50.0, 11), (90.0, 64), (95.0, 130), (99.0, 662), (99.9, 6636)]
)
def test_a_percentile_needs_its_number_of_samples(q: float, fewest: int) -> None:
    assert fewest_samples(q) == fewest_samples(100 - q) == fewest
    samples = np.random.default_rng(0).integers(1, MS, fewest)
    assert percentile(samples[:-1], q) is None
    assert percentile(samples, q) == np.percentile(samples, q)


@pytest.mark.parametrize("size", [40, 401])
def test_interval_of_independent_samples_is_scipys(size: int) -> None:
    samples = np.random.default_rng(1).gamma(4, MS, size)
    theirs = bootstrap(
        (samples,), np.median, n_resamples=2000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    singles = median_interval(list(samples[:, None]))
    assert_close_interval(singles, theirs.low, theirs.high, share=0.15)


def test_a_block_weighs_as_many_samples_as_it_has() -> None:
    blocks = [np.full(10_000, 100.0)] * 6 + [np.full(300, 200.0)] * 10
    assert np.median(np.concatenate(blocks)) == 100
    low, high = median_interval(blocks) or (0, 0)
    assert low == 100
    assert high in (100, 200)


@pytest.mark.parametrize("runs", [7, 150, 1000])  # the last are more than enter as they are
def test_interval_of_blocks_is_scipys_on_whole_blocks(runs: int) -> None:
    rng = np.random.default_rng(3)
    blocks = simulated(rng, np.ones(25), runs=runs, between=0.05, within=0.1)
    theirs = bootstrap(
        (np.arange(25),),
        lambda drawn: np.median(np.concatenate([blocks[i] for i in drawn])),
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=np.random.default_rng(4),
    ).confidence_interval
    assert_close_interval(median_interval(blocks), theirs.low, theirs.high, share=0.15)


def test_a_paired_ratio_is_the_centre_of_the_rounds() -> None:
    rng = np.random.default_rng(5)
    drift = wandering(rng, 30)
    a, b = simulated(rng, drift, level=2 * MS), simulated(rng, drift)
    got = ratio(a, b)
    assert got is not None
    rounds = np.array([np.median(x) / np.median(y) for x, y in zip(a, b, strict=True)])
    assert got.value == pytest.approx(hodges_lehmann(rounds))
    assert got.interval == exact_interval(rounds, 0.95)
    assert got.wide == exact_interval(rounds, 0.99)
    assert got.wide[0] < got.interval[0] < got.value < got.interval[1] < got.wide[1]


def test_the_stop_rule_asks_the_interval_of_the_rounds() -> None:
    rounds = np.random.default_rng(7).normal(100, 5, 40)
    found = reach(exact_interval(rounds, 0.95), hodges_lehmann(rounds))
    assert relative_reach(rounds) == pytest.approx(found)
    assert relative_reach(rounds[:4]) == np.inf
    assert relative_reach(np.zeros(40)) == np.inf


def independent(rng: np.random.Generator) -> Blocks:
    return simulated(rng, np.ones(20), between=0.0, within=0.1)


def correlated(rng: np.random.Generator) -> Blocks:
    return simulated(rng, np.ones(20), between=0.05, within=0.02)


@pytest.mark.parametrize("experiment", [independent, correlated])
def test_the_interval_holds_the_true_median(
    experiment: Callable[[np.random.Generator], Blocks],
) -> None:
    truth = float(
        np.median(
            np.concatenate(
                [
                    np.concatenate(experiment(np.random.default_rng(i)))
                    for i in range(10_000, 11_000)
                ]
            )
        )
    )
    hits = 0
    for seed in range(300):
        low, high = median_interval(experiment(np.random.default_rng(seed))) or (0, 0)
        hits += low <= truth <= high
    assert hits / 300 >= 0.88


def verdicts(rounds: int, between: float, true: float) -> Counter[Verdict]:
    """Of 100 comparisons of two rows with `true` as their ratio, on one drifting machine."""
    found: Counter[Verdict] = Counter()
    for seed in range(100):
        rng = np.random.default_rng(seed)
        drift = wandering(rng, rounds)
        row = simulated(rng, drift, level=true * MS, between=between)
        compared = ratio(row, simulated(rng, drift, between=between))
        assert compared is not None
        found[compared.verdict] += 1
    return found


# Rounds, and the deviation of a block of its own. The engine stops at 10 rounds or more; two rows
# of short passes have about 50 in two seconds.
TWO_SECONDS = [(20, 0.01), (50, 0.01), (50, 0.02)]
REALISTIC = [(10, 0.01), (20, 0.01), (20, 0.02), (40, 0.02)]


@pytest.mark.parametrize(("rounds", "between"), REALISTIC)
def test_a_row_against_itself_wins_at_most_once_in_a_hundred(rounds: int, between: float) -> None:
    found = verdicts(rounds, between, true=1.0)
    assert found[Verdict.FASTER] + found[Verdict.SLOWER] <= 1


@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_few_rounds_say_nothing_of_the_next(rounds: int) -> None:
    rng = np.random.default_rng(0)
    a, b = simulated(rng, np.ones(rounds), runs=500), simulated(rng, np.ones(rounds), runs=500)
    assert ratio(a, b) is None
    assert median_interval(a) is None


@pytest.mark.parametrize(("rounds", "between"), TWO_SECONDS)
@pytest.mark.parametrize(("true", "expected"), [(1.05, Verdict.SLOWER), (0.95, Verdict.FASTER)])
def test_a_true_difference_of_five_percent_is_found(
    rounds: int, between: float, true: float, expected: Verdict
) -> None:
    assert verdicts(rounds, between, true)[expected] >= 95


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.90, 0.98, "FASTER"),
        (0.90, 0.99, "UNCLEAR"),  # the bound of the band belongs to the band
        (1.02, 1.10, "SLOWER"),
        (1.01, 1.10, "UNCLEAR"),
        (0.99, 1.01, "SAME"),
        (1.0, 1.0, "SAME"),
        (0.98, 1.005, "UNCLEAR"),
        (0.5, 1.5, "UNCLEAR"),
        (float("nan"), float("nan"), "UNCLEAR"),
        (0.5, float("nan"), "UNCLEAR"),
        (float("-inf"), float("inf"), "UNCLEAR"),
    ],
)
def test_verdict_is_where_the_whole_interval_lies(low: float, high: float, verdict: str) -> None:
    assert Ratio(value=1.0, interval=(low, high), wide=(low, high)).verdict == verdict


@pytest.mark.parametrize(("wide", "verdict"), [((0.8, 0.97), "FASTER"), ((0.8, 1.2), "UNCLEAR")])
def test_a_win_takes_the_wide_interval(wide: tuple[float, float], verdict: str) -> None:
    assert Ratio(value=0.9, interval=(0.89, 0.91), wide=wide).verdict == verdict


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ((1.05, 1.06, 1.02), "SLOWER"),
        ((1.05, 1.12, 1.005), "UNCLEAR"),  # one process alone may be slow for all its life
        ((1.2, 1.2, 0.98), "UNCLEAR"),
        ((), "SLOWER"),
    ],
)
def test_a_win_takes_all_processes(parts: tuple[float, ...], verdict: str) -> None:
    wide = (1.02, 1.08)
    assert Ratio(value=1.05, interval=wide, wide=wide, parts=parts).verdict == verdict
    faster = Ratio(
        value=1 / 1.05,
        interval=(1 / 1.08, 1 / 1.02),
        wide=(1 / 1.08, 1 / 1.02),
        parts=tuple(1 / part for part in parts),
    )
    assert faster.verdict == verdict.replace("SLOWER", "FASTER")


@pytest.mark.parametrize(
    ("wide", "disturbance", "verdict"),
    [
        ((1.1, 1.3), 0.0, "SLOWER"),
        ((1.1, 1.3), 0.05, "SLOWER"),  # what is not warned of counts for nothing
        ((1.1, 1.3), 0.06, "UNCLEAR"),
        ((1.9, 2.1), 0.25, "UNCLEAR"),  # one core of two, half of the time
        ((2.1, 2.2), 0.25, "SLOWER"),
        ((0.47, 0.48), 0.25, "FASTER"),
        ((0.5, 0.6), 0.25, "UNCLEAR"),
        ((100, 200), 0.5, "UNCLEAR"),
        ((0.01, 0.02), 0.9, "UNCLEAR"),
    ],
)
def test_a_disturbed_win_must_be_larger(
    wide: tuple[float, float], disturbance: float, verdict: str
) -> None:
    value = float(np.mean(wide))
    found = Ratio(value=value, interval=wide, wide=wide, disturbance=disturbance)
    assert found.verdict == verdict


@pytest.mark.parametrize("confidence", [0.95, 0.99])
@pytest.mark.parametrize("count", [6, 8, 9, 20, 37, 60, 61, 200])
def test_exact_interval_holds_what_the_signed_rank_test_does_not_reject(
    count: int, confidence: float
) -> None:
    values = np.exp(np.random.default_rng(count).normal(0, 0.1, count))
    low, high = exact_interval(values, confidence)
    if 2 / 2**count > 1 - confidence:
        logs = np.log(values)
        theirs = t.interval(confidence, count - 1, logs.mean(), sem(logs))
        assert (low, high) == pytest.approx(np.exp(theirs))
        return

    def rejected(centre: float) -> bool:
        p = wilcoxon(np.log(values / centre), method="exact").pvalue
        return bool(p <= (1 - confidence) * (1 + 1e-9))

    step = 1e-9 if count <= 60 else 0.001  # beyond, the normal approximation
    assert [rejected(low * (1 + step)), rejected(high * (1 - step))] == [False, False]
    assert [rejected(low * (1 - step)), rejected(high * (1 + step))] == [True, True]
    assert low < hodges_lehmann(values) < high


def hodges_lehmann(values: np.ndarray) -> float:
    pairs = [np.log(a * b) / 2 for i, a in enumerate(values) for b in values[i:]]
    return float(np.exp(np.median(pairs)))


@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_the_centre_is_the_median_of_all_pairs(count: int) -> None:
    values = np.random.default_rng(count).gamma(2, 1, count)
    assert centre(values) == pytest.approx(hodges_lehmann(values))


@pytest.mark.parametrize("count", [401, 5000])
def test_many_rounds_give_a_narrow_interval_about_the_truth(count: int) -> None:
    values = 3 * np.exp(np.random.default_rng(0).normal(0, 0.1, count))
    low, high = exact_interval(values, 0.95)
    assert low < 3 < high
    assert np.log(high / low) == pytest.approx(2 * 1.96 * 0.1 / np.sqrt(count), rel=0.25)


@pytest.mark.parametrize("rounds", [6, 10, 20, 40])
@pytest.mark.parametrize("between", [0.05, 0.5])
def test_noise_of_any_size_is_no_win(rounds: int, between: float) -> None:
    """One per cent of comparisons may be: of 400, at most 9 (probability 0.992)."""
    wins = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        values = np.exp(rng.normal(0, between, rounds))
        wide = exact_interval(values, 0.99)
        wins += wide[0] > 1.01 or wide[1] < 0.99
    assert wins <= 9


samples = st.lists(st.integers(1, 10**12), min_size=1, max_size=12).map(np.array)
blocks = st.lists(samples, max_size=8)


@settings(deadline=None, max_examples=50)
@given(blocks, blocks, st.sampled_from([0.125, 0.5, 4.0, 1024.0]))
def test_time_scales_out(a: Blocks, b: Blocks, k: float) -> None:
    """In another unit the ratio is the same; a row k times as slow has k times the ratio."""
    plain = ratio(a, b)
    slower = ratio([k * x for x in a], b)
    assert ratio([k * x for x in a], [k * y for y in b]) == plain
    if plain is None:
        assert slower is None
        return
    assert slower is not None
    assert slower.value == pytest.approx(k * plain.value)
    assert slower.interval == pytest.approx((k * plain.interval[0], k * plain.interval[1]))
    interval = median_interval(a)
    assert interval is not None
    assert median_interval([k * x for x in a]) == pytest.approx((k * interval[0], k * interval[1]))


@settings(deadline=None, max_examples=50)
@given(blocks, blocks)
def test_tiny_samples_never_raise(a: Blocks, b: Blocks) -> None:
    compared, interval = ratio(a, b), median_interval(a)
    assert (interval is None) == (sum(map(len, a)) < 11 or len(a) < 5)
    rounds = min(len(a), len(b))
    fewest = min(sum(map(len, side[:rounds])) for side in (a, b))
    assert (compared is None) == (fewest < 11 or rounds < 5)
    for bounds in (interval, compared and compared.interval):
        assert bounds is None or 0 <= bounds[0] <= bounds[1] < np.inf
    relative_reach(np.array([np.median(x) for x in a]))


ZERO, ONE = [np.zeros(3)], [np.ones(3)]


@pytest.mark.parametrize(
    "b",
    [
        pytest.param(ZERO * 6, id="all"),
        pytest.param(ZERO * 4, id="few rounds"),
        pytest.param(ONE * 5 + ZERO, id="one round"),
    ],
)
def test_times_of_zero_never_raise(b: Sequence[np.ndarray]) -> None:
    compared = ratio(ONE * len(b), b)
    assert compared is None or np.isfinite(compared.interval).all()


def test_a_row_of_zeros_is_nothing_of_the_baseline() -> None:
    compared = ratio(ZERO * 6, ONE * 6)
    assert compared is not None
    assert (compared.value, compared.interval) == (0.0, (0.0, 0.0))
    assert median_interval(ZERO * 6) == (0.0, 0.0)


def test_drift_that_hits_both_rows_cancels() -> None:
    rng = np.random.default_rng(8)
    drift = 10 ** rng.uniform(-1, 1, 30)
    row = [np.full(5, 2 * MS * level) for level in drift]
    baseline = [np.full(5, MS * level) for level in drift]
    compared = ratio(row, baseline)
    assert compared is not None
    assert (compared.value, *compared.interval) == pytest.approx((2, 2, 2))


def test_the_same_samples_give_the_same_interval() -> None:
    a = simulated(np.random.default_rng(9), np.ones(12))
    b = simulated(np.random.default_rng(10), np.ones(12))
    assert ratio(a, b) == ratio(a, b)
    assert median_interval(a) == median_interval(a)

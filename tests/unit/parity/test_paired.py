"""Paired comparisons: McNemar's test, Tango's interval, gates and the rows that they take."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from toolkit.core.errors import UsageError
from toolkit.core.gates import CheckOutcome
from toolkit.parity.paired import (
    Unit,
    Z,
    accuracy_drop,
    check_max_drop,
    error_drop,
    mcnemar,
    tango_interval,
)

counts = st.integers(0, 60)


@given(counts, counts)
def test_mcnemar_is_the_binomial_test(only_a: int, only_b: int):
    total = only_a + only_b
    expected = binomtest(only_a, total).pvalue if total else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_many_rows_is_a_number():
    assert mcnemar(0, 5000) == 0.0
    assert 0.9 < mcnemar(5000, 5001) <= 1.0


def test_tango_s_interval_of_a_published_table():
    """Hyper-responsive airways before and after a transplant, 21 children (Bentur et al., 2009), in
    Fagerland, Lydersen and Laake, 2014: 1 child only before, 7 only after."""
    assert tango_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


@given(counts, counts, st.integers(1, 60))
def test_the_interval_holds_the_difference_and_turns_with_the_sides(
    only_a: int, only_b: int, others: int
):
    rows = only_a + only_b + others
    low, high = tango_interval(only_a, only_b, rows)
    assert -1 <= low <= (only_a - only_b) / rows <= high <= 1
    assert low < high
    assert tango_interval(only_b, only_a, rows) == pytest.approx((-high, -low), abs=1e-9)
    wider = tango_interval(only_a / 4, only_b / 4, rows / 4)
    assert wider[0] <= low + 1e-12
    assert wider[1] >= high - 1e-12


def test_without_a_discordant_row_the_interval_is_that_of_none_in_so_many():
    """Where z squared is n d / (1 - d): the score interval of no event in n."""
    bound = Z**2 / (360 + Z**2)
    assert tango_interval(0, 0, 360) == pytest.approx((-bound, bound), abs=1e-9)


@pytest.mark.parametrize(
    ("rows", "only_a", "only_b"),
    [(100, 0.05, 0.05), (360, 0.02, 0.01), (360, 0.005, 0.005), (1000, 0.03, 0.01), (60, 0.3, 0.1)],
)
def test_the_interval_covers_the_truth_as_often_as_it_says(rows: int, only_a: float, only_b: float):
    interval = functools.cache(tango_interval)
    drawn = np.random.default_rng(0).multinomial(rows, [only_a, only_b, 1 - only_a - only_b], 4000)
    covered = [
        low <= only_a - only_b <= high
        for a, b, _ in drawn.tolist()
        for low, high in [interval(a, b, rows)]
    ]
    assert 0.935 <= np.mean(covered) <= 0.975


def rights(rows: int, only_a: int, only_b: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.ones(rows, bool), np.ones(rows, bool)
    b[:only_a] = False
    a[only_a : only_a + only_b] = False
    return a, b


def test_a_drop_is_told_in_points():
    drop = accuracy_drop(*rights(1000, 9, 5))
    assert (drop.unit, drop.rows, drop.only_a, drop.only_b) == (Unit.POINTS, 1000, 9, 5)
    assert drop.value == pytest.approx(0.4)
    assert not drop.shown
    assert accuracy_drop(*rights(1000, 20, 2)).shown
    assert accuracy_drop(*rights(1000, 2, 20)).shown


def test_five_rows_to_none_are_not_shown_by_the_interval_alone():
    """Tango's interval excludes 0 there, McNemar's exact test gives 0.0625."""
    drop = accuracy_drop(*rights(1000, 5, 0))
    assert drop.interval[0] > 0
    assert not drop.shown


@pytest.mark.parametrize(
    ("rows", "only_a", "only_b", "allowed", "gate"),
    [
        (360, 0, 0, 0.5, CheckOutcome.UNKNOWN),
        (1000, 0, 0, 0.5, CheckOutcome.PASSED),
        (360, 0, 0, 1.1, CheckOutcome.PASSED),
        (1000, 30, 2, 0.5, CheckOutcome.FAILED),
        (1000, 30, 2, 5, CheckOutcome.PASSED),
        (1000, 9, 5, 0.5, CheckOutcome.UNKNOWN),
        (1000, 2, 30, 0.5, CheckOutcome.PASSED),
    ],
)
def test_the_gate_is_by_the_interval(
    rows: int, only_a: int, only_b: int, allowed: float, gate: CheckOutcome
):
    assert accuracy_drop(*rights(rows, only_a, only_b)).gate(allowed) is gate


@given(st.integers(50, 500), st.integers(0, 8), st.integers(0, 8), st.floats(0.1, 5))
def test_as_many_rows_as_are_named_tell_and_half_of_them_do_not(
    rows: int, only_a: int, only_b: int, allowed: float
):
    drop = accuracy_drop(*rights(rows, only_a, only_b))
    if drop.gate(allowed) is not CheckOutcome.UNKNOWN:
        return
    needed = drop.rows_needed(allowed)
    if needed is None:
        assert abs(drop.value - allowed) < 0.01
        return
    scaled = tango_interval(only_a / rows * needed, only_b / rows * needed, needed)
    assert 100 * scaled[1] <= allowed or 100 * scaled[0] > allowed
    assert needed > rows


def test_a_drop_that_is_the_one_allowed_is_told_by_no_number_of_rows():
    assert accuracy_drop(*rights(1000, 5, 0)).rows_needed(0.5) is None


@pytest.mark.parametrize("allowed", [0, -1, float("nan"), 101])
def test_what_is_no_drop_is_refused(allowed: float):
    with pytest.raises(UsageError, match="--max-drop"):
        check_max_drop(allowed)


def test_a_rise_of_the_mse_is_told_in_per_cent():
    rng = np.random.default_rng(0)
    a = rng.normal(size=2000) ** 2
    drop = error_drop(a, 1.1 * a)
    assert drop is not None
    assert (drop.unit, drop.p) == (Unit.MSE, None)
    assert drop.value == pytest.approx(10)
    assert drop.interval == pytest.approx((10, 10))
    assert drop.shown
    assert drop.squared is not None
    assert drop.squared.value == pytest.approx(0.1 * a.mean())
    low, high = drop.squared.interval
    assert low < drop.squared.value < high
    assert drop.gate(9) is CheckOutcome.FAILED
    assert drop.gate(11) is CheckOutcome.PASSED
    assert error_drop(np.zeros(30), a[:30]) is None


def test_rows_for_a_rise_grow_with_the_square_of_how_near_it_is():
    rng = np.random.default_rng(1)
    base = rng.normal(size=400)
    drop = error_drop(base**2, (base + 0.05 * rng.normal(size=400)) ** 2)
    assert drop is not None
    near, far = drop.value + 0.1, drop.value + 0.2
    assert drop.gate(near) is CheckOutcome.UNKNOWN
    assert drop.rows_needed(near) == pytest.approx(4 * drop.rows_needed(far), rel=1e-2)
    assert drop.rows_needed(drop.value) is None

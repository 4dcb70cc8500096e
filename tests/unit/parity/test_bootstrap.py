"""The bootstrap of two mean squared errors on the same rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from toolkit.parity import bootstrap
from toolkit.parity.bootstrap import bootstrap_difference


def skewed(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors of two models that share most of what makes a row hard."""
    base = rng.normal(size=rows)
    return base**2, (1.05 * base + 0.2 * rng.normal(size=rows)) ** 2


@pytest.mark.parametrize("rows", [12, 150])
def test_the_interval_is_scipy_s(rows: int):
    a, b = skewed(np.random.default_rng(3), rows)
    found = bootstrap_difference(a, b, 0.95)
    for estimate, figure in (
        (found.absolute, lambda a, b, axis=-1: b.mean(axis) - a.mean(axis)),
        (found.percent, lambda a, b, axis=-1: 100 * (b.mean(axis) / a.mean(axis) - 1)),
    ):
        theirs = stats.bootstrap(
            (a, b), figure, paired=True, vectorized=True, n_resamples=9999, method="BCa",
            rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
        width = theirs.high - theirs.low
        assert estimate.value == pytest.approx(figure(a, b))
        assert estimate.interval == pytest.approx(tuple(theirs), abs=0.06 * width)


def test_it_covers_the_truth_about_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 600)
    rng = np.random.default_rng(0)
    truth = 1.05**2 + 0.2**2 - 1
    covered = []
    for _ in range(300):
        found = bootstrap_difference(*skewed(rng, 200), 0.95)
        low, high = found.percent.interval
        covered.append(low <= 100 * truth <= high)
    assert 0.90 <= np.mean(covered) <= 0.985


def test_what_rows_share_cancels():
    """The same errors in another order have the same means, and a wider interval."""
    a, b = skewed(np.random.default_rng(0), 300)
    kept, shuffled = (
        bootstrap_difference(a, other, 0.95).absolute.interval
        for other in (b, np.random.default_rng(1).permutation(b))
    )
    assert kept[1] - kept[0] < 0.7 * (shuffled[1] - shuffled[0])


def test_draws_held_a_few_at_a_time_are_the_same(monkeypatch: pytest.MonkeyPatch):
    a, b = skewed(np.random.default_rng(0), 90)
    whole = bootstrap_difference(a, b, 0.95)
    monkeypatch.setattr(bootstrap, "HELD", 1000)
    assert bootstrap_difference(a, b, 0.95) == whole


def test_equal_errors_have_no_difference():
    errors = np.random.default_rng(0).normal(size=50) ** 2
    found = bootstrap_difference(errors, errors, 0.95)
    assert (found.absolute.value, found.absolute.interval) == (0, (0, 0))
    assert (found.percent.value, found.percent.interval) == (0, (0, 0))


def test_one_row_with_errors_among_none():
    """Draws without it have no errors of A to be a part of."""
    a, b = np.zeros(30), np.zeros(30)
    a[3], b[3], b[4] = 1, 2, 1
    low, high = bootstrap_difference(a, b, 0.95).percent.interval
    assert np.isfinite([low, high]).all()

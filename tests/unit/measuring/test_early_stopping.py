"""Early stopping against SciPy's binomial distribution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from toolkit.measuring.figures.statistics import early_stopping, fewest_samples

QS = (50.0, 90.0, 95.0, 97.0, 99.0, 99.9)
sizes = st.integers(1, 30_000)


def discarded(n: int, q: float) -> int:
    """How many samples are at or above the estimate: `n - t` is what is told of `0 .. n - 1`."""
    estimate = early_stopping(np.arange(n), q)
    return 0 if estimate is None else n - int(estimate)


def by_definition(n: int, q: float) -> int:
    """The largest t with n >= h + t, h being the least with BinomCDF(t; h + t, 1 - p) <= 1 %."""
    found = 0
    h = np.arange(1, n + 1)
    for t in range(1, n):
        small = binom.cdf(t, h + t, 1 - q / 100) <= 1 - 0.99
        if not small.any() or n < h[small.argmax()] + t:
            return found
        found = t
    return found


def at_once(n: int, q: float) -> int:
    """The same: the distribution falls as h grows, so h = n - t says whether the least is below."""
    t = np.arange(n + 1)
    return int(t[binom.cdf(t, n, 1 - q / 100) <= 1 - 0.99].max(initial=0))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 1000), st.sampled_from(QS))
def test_it_is_what_the_definition_says(n: int, q: float) -> None:
    assert discarded(n, q) == by_definition(n, q) == at_once(n, q)


@settings(deadline=None)
@given(sizes, st.sampled_from(QS))
def test_it_is_the_binomial_distribution_s(n: int, q: float) -> None:
    assert discarded(n, q) == at_once(n, q)


@pytest.mark.parametrize("q", QS)
def test_it_begins_with_the_largest_sample_at_the_fewest_that_a_percentile_needs(q: float) -> None:
    samples = np.random.default_rng(0).permutation(fewest_samples(q))
    assert early_stopping(samples[:-1], q) is None
    assert early_stopping(samples, q) == samples.max()


@settings(deadline=None)
@given(sizes, st.integers(1, 1000), st.sampled_from(QS))
def test_more_samples_discard_no_fewer(n: int, more: int, q: float) -> None:
    assert discarded(n, q) <= discarded(n + more, q) <= discarded(n, q) + more


@settings(deadline=None)
@given(st.integers(700, 5000), st.integers(0, 2**32 - 1))
def test_it_is_one_of_the_samples_and_not_below_the_percentile(n: int, seed: int) -> None:
    samples = np.random.default_rng(seed).exponential(1e6, n)
    estimates = [early_stopping(samples, q) or 0 for q in (50.0, 90.0, 99.0)]
    assert estimates == sorted(estimates)
    assert set(estimates) <= set(samples)
    assert estimates[2] >= np.percentile(samples, 99)


def test_the_true_percentile_lies_above_it_once_in_a_hundred_times_at_most() -> None:
    rng = np.random.default_rng(1)
    true = -np.log(0.01)  # of the exponential distribution
    misses = sum((early_stopping(rng.exponential(1, 1500), 99.0) or 0) < true for _ in range(2000))
    assert 0 < misses <= 20


@pytest.mark.parametrize("n", [200_000, 2_000_000])
def test_many_samples_come_near_the_percentile(n: int) -> None:
    assert discarded(n, 99.0) == at_once(n, 99.0)
    assert 0.9 < discarded(n, 99.0) / (0.01 * n) < 1


def test_unknown_samples_are_no_estimate() -> None:
    assert early_stopping(np.empty(0), 99.0) is None
    assert early_stopping(np.array([1.0]), 50.0) is None

"""A histogram of one size, whatever comes and in whichever batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calibration.histogram import BINS, Histogram
from toolkit.core.errors import UsageError

floats = arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
)


def of(*batches: np.ndarray) -> Histogram:
    made = Histogram()
    for batch in batches:
        made.add(batch)
    return made


@given(values=floats, cut=st.integers(0, 60), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_the_counts_are_the_same_in_any_batches_and_order(
    values: np.ndarray, cut: int, seed: int
) -> None:
    shuffled = np.random.default_rng(seed).permutation(values)
    whole, parts = of(values), of(shuffled[:cut], shuffled[cut:])
    assert np.array_equal(whole.counts, parts.counts)
    assert whole.width == parts.width


@given(values=floats)
@settings(deadline=None, max_examples=60)
def test_count_least_and_greatest_are_exact_and_each_value_is_in_its_bin(
    values: np.ndarray,
) -> None:
    found = of(values)
    assert (found.count, found.least, found.greatest) == (
        len(values),
        float(values.min()),
        float(values.max()),
    )
    places = np.floor(values.astype(np.float64) / found.width).astype(int) + BINS
    assert np.array_equal(np.bincount(places, minlength=2 * BINS), found.counts)


def test_it_uses_half_of_its_bins_at_least() -> None:
    for bound in (1e-6, 0.7, 1.0, 3.99, 1e9):
        used = np.flatnonzero(of(np.array([bound, 0], np.float32)).magnitudes()).max() + 1
        assert BINS // 2 <= used <= BINS


def test_its_size_does_not_grow() -> None:
    found = Histogram()
    sizes = set()
    for scale in range(200):
        found.add(np.full(1000, 1.1**scale, np.float32))
        sizes.add(found.counts.nbytes)
    assert sizes == {2 * BINS * 8}
    assert found.count == 200_000


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(UsageError, match="1 values of 3 that are NaN or infinite"):
        of(np.array([1, bad, 2], np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_dtypes_and_no_values(dtype: type) -> None:
    found = of(np.array([], dtype), np.array([[-1.5, 0.25]], dtype))
    assert (found.count, found.least, found.greatest) == (2, -1.5, 0.25)

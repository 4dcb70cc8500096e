"""What range each method chooses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import METHODS
from calibration.base import Grid, Range
from calibration.collector import Collector
from calibration.histogram import Histogram
from calibration.methods import parse
from toolkit.core.errors import UnknownNameError, UsageError

GRIDS = [Grid(symmetric=False), Grid(symmetric=True)]
grids = pytest.mark.parametrize("grid", GRIDS, ids=["asymmetric", "symmetric"])


def histogram(values: np.ndarray) -> Histogram:
    made = Histogram()
    made.add(values.astype(np.float32))
    return made


def error(values: np.ndarray, chosen: Range, grid: Grid) -> float:
    return float(((grid.quantised(values, chosen) - values) ** 2).mean())


@given(
    name=st.sampled_from(METHODS.names()),
    symmetric=st.booleans(),
    seed=st.integers(0, 1000),
    shift=st.floats(-5, 5),
)
@settings(deadline=None, max_examples=80)
def test_a_range_holds_0_and_no_more_than_the_values(
    name: str, symmetric: bool, seed: int, shift: float
) -> None:
    values = np.random.default_rng(seed).standard_normal(300).astype(np.float32) + shift
    found = parse(name).range_of(histogram(values), Grid(symmetric=symmetric))
    assert min(float(values.min()), 0) <= found.low <= 0 <= found.high
    assert found.high <= max(float(values.max()), 0)
    assert found.high > found.low


@grids
@pytest.mark.parametrize("name", METHODS.names())
def test_all_zeros_have_a_range_of_nothing(name: str, grid: Grid) -> None:
    found = parse(name).range_of(histogram(np.zeros(10)), grid)
    assert (found.low, found.high) == (0, 0)
    assert not grid.quantised(np.zeros(3), found).any()


def test_minmax_is_exact() -> None:
    found = parse("minmax").range_of(histogram(np.array([-0.3, 7.125])), GRIDS[0])
    assert (found.low, found.high) == (float(np.float32(-0.3)), 7.125)


@pytest.mark.parametrize(("share", "bound"), [(50, 0.5), (90, 0.9), (100, 1.0)])
def test_percentile_keeps_so_many(share: float, bound: float) -> None:
    values = np.linspace(0, 1, 100_001)
    found = parse(f"percentile={share}").range_of(histogram(values), GRIDS[0])
    assert found.high == pytest.approx(bound, abs=1e-3)
    assert (values <= found.high).mean() >= share / 100


def test_percentile_leaves_out_an_outlier_that_minmax_keeps() -> None:
    values = np.append(np.random.default_rng(0).standard_normal(100_000), 1000)
    assert parse("percentile").range_of(histogram(values), GRIDS[0]).high < 6
    assert parse("minmax").range_of(histogram(values), GRIDS[0]).high == 1000


@grids
@pytest.mark.parametrize("spread", ["normal", "laplace", "exponential"])
def test_mse_is_off_by_less_than_any_other(spread: str, grid: Grid) -> None:
    values = getattr(np.random.default_rng(0), spread)(size=50_000)
    seen = histogram(values)
    found = {n: error(values, parse(n).range_of(seen, grid), grid) for n in METHODS.names()}
    assert found["mse"] <= 1.01 * min(found.values())
    assert found["mse"] < 0.95 * found["minmax"]


def test_mse_is_near_the_best_clip_of_a_normal() -> None:
    """3.92 standard deviations for 8 bits: Banner et al., 2019, table 1 (ACIQ)."""
    values = np.random.default_rng(0).standard_normal(1_000_000)
    found = parse("mse").range_of(histogram(values), Grid(symmetric=True))
    assert found.high == pytest.approx(3.92, abs=0.25)


@grids
def test_entropy_cuts_a_thin_tail_and_keeps_an_even_spread(grid: Grid) -> None:
    rng = np.random.default_rng(0)
    tail = np.append(np.abs(rng.standard_normal(200_000)), np.linspace(5, 60, 60))
    assert parse("entropy").range_of(histogram(tail), grid).high < 20
    even = rng.uniform(0, 1, 200_000)
    assert parse("entropy").range_of(histogram(even), grid).high > 0.97


@grids
def test_quantised_values_are_off_by_half_a_step_at_most(grid: Grid) -> None:
    chosen = Range(low=-1.0, high=3.0)
    values = np.linspace(-1, 3, 1001)
    step = 3 / 127 if grid.symmetric else 4 / 255
    apart = np.abs(grid.quantised(values, chosen) - values)
    assert apart.max() <= step * (0.5 if grid.symmetric else 1.0) + 1e-12
    assert grid.quantised(np.zeros(1), chosen)[0] == 0
    assert np.unique(grid.quantised(np.linspace(-9, 9, 9001), chosen)).size <= grid.steps + 1


@pytest.mark.parametrize("text", ["percentile=49", "percentile=many", "minmax=3", "mse="])
def test_a_number_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        parse("percentil")
    assert "'percentile'" in caught.value.hint


def test_a_collector_names_the_tensor_that_is_not_finite() -> None:
    collector = Collector()
    collector.add({"ids": np.arange(3), "a": np.ones(2, np.float32)})
    with pytest.raises(UsageError, match="relu_1: Got 1 values of 2"):
        collector.add({"relu_1": np.array([np.nan, 1], np.float32)})
    assert set(collector.histograms) >= {"a"}
    assert "ids" not in collector.histograms

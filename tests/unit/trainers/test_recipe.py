"""Recipes: numbers that no training can use are refused, and all rates are finite."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.core.errors import UsageError
from toolkit.trainers.recipe import Recipe


def recipe(**changes: object) -> Recipe:
    return Recipe(**{"epochs": 2, "seed": 0, "batch": 4, "learning_rate": 0.1, **changes})


@pytest.mark.parametrize("name", ["learning_rate", "momentum", "weight_decay"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"Got {name} "):
        recipe(**{name: value})


@pytest.mark.parametrize("name", ["epochs", "batch"])
@pytest.mark.parametrize("value", [0, -1, 2**31, 10**400])
def test_a_count_outside_the_range_is_refused(name: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"Got {name} "):
        recipe(**{name: value})


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        st.sampled_from(["constant", "cosine", "step:1,2:1e200", "step:1:nan", "step:::", "step:"]),
        st.builds(
            "step:{}:{}".format,
            st.lists(st.integers(0, 9), max_size=3).map(lambda edges: ",".join(map(str, edges))),
            st.floats(),
        ),
        st.text(max_size=12),
    ),
    st.floats(min_value=1e-300, max_value=1e308),
    st.integers(1, 10),
)
def test_the_rates_of_a_recipe_are_finite(schedule: str, rate: float, epochs: int) -> None:
    try:
        made = recipe(schedule=schedule, learning_rate=rate, epochs=epochs)
    except UsageError:
        return
    for epoch in range(epochs):
        rates = made.rates(epoch, 3)
        assert rates.shape == (3,)
        assert np.isfinite(rates).all()

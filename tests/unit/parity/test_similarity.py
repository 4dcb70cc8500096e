"""Signal to noise, and the angle between outputs."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.parity.similarity import similarity


@given(st.floats(-60, 60), st.floats(0.1, 1e3))
def test_noise_of_a_known_power_is_told_in_decibels(decibels: float, scale: float):
    signal = np.array([3.0, 4.0]) * scale
    noise = np.array([4.0, -3.0]) * scale * 10 ** (-decibels / 20)
    found = similarity(signal + noise, signal)
    assert found is not None
    assert found.sqnr_db == pytest.approx(decibels, abs=1e-6)
    assert found.cosine == pytest.approx(1 / math.sqrt(1 + 10 ** (-decibels / 10)))


def test_equal_outputs_are_told_so_in_json():
    array = np.ones((2, 3), np.float32)
    found = similarity(array, array.copy())
    assert found is not None
    assert found.sqnr_db == math.inf
    assert json.loads(json.dumps(found.to_json(), allow_nan=False)) == {
        "sqnr_db": None,
        "equal": True,
        "cosine": 1.0,
    }


def test_nothing_to_divide_by_is_unknown():
    found = similarity(np.ones(3), np.zeros(3))
    assert found is not None
    assert (found.sqnr_db, found.cosine) == (None, None)


@pytest.mark.parametrize(
    ("got", "reference"),
    [
        (np.ones(3), np.ones(4)),
        (np.ones(3, np.int64), np.ones(3, np.int64)),
        (np.array([1.0, np.nan]), np.ones(2)),
        (np.ones(2), np.array([1.0, np.inf])),
    ],
)
def test_what_has_no_distance_has_none(got: np.ndarray, reference: np.ndarray):
    assert similarity(got, reference) is None

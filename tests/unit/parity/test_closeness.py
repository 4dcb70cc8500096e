"""How close INT8 outputs are, batch by batch."""

from __future__ import annotations

import math

import numpy as np
import pytest

from toolkit.parity.closeness import Closeness, Comparison


def compared(got: np.ndarray, reference: np.ndarray, size: int = 100) -> Closeness:
    comparison = Comparison()
    for start in range(0, len(got), size):
        comparison.add(got[start : start + size], reference[start : start + size])
    return comparison.result()


def test_noise_of_a_known_power() -> None:
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((1000, 10))
    found = compared(reference + 0.1 * rng.standard_normal((1000, 10)), reference)
    assert found.sqnr_db == pytest.approx(20, abs=0.3)
    assert found.cosine == pytest.approx(1 / math.sqrt(1.01), abs=1e-3)
    assert found.rows == 1000
    assert found.agreement is not None
    assert 0.9 < found.agreement < 1


def test_batches_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 64, 5)).astype(np.float32)
    one, other = compared(a, b, 64), compared(a, b, 7)
    assert one.sqnr_db == pytest.approx(other.sqnr_db)
    assert one.agreement == other.agreement


def test_the_same_is_identical() -> None:
    a = np.ones((3, 2))
    found = compared(a, a)
    assert found.sqnr_db == math.inf
    assert found.to_json()["identical"] is True
    assert (found.cosine, found.agreement) == (pytest.approx(1), 1)


def test_zeros_and_values() -> None:
    found = compared(np.ones((4, 1)), np.zeros((4, 1)))
    assert (found.sqnr_db, found.cosine, found.agreement) == (-math.inf, None, None)


def test_classes_that_changed() -> None:
    reference = np.eye(4)
    got = reference.copy()
    got[0] = [0, 0, 0, 9]
    assert compared(got, reference).agreement == 0.75

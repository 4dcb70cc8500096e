"""Losses and metrics, against torch's and scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import accuracy_score, mean_absolute_error, mean_squared_error

from toolkit.core.specs import TaskKind
from toolkit.data.scores import (
    are_probabilities,
    log_loss_of,
    loss_of,
    metric_of,
    share_equal,
    share_in_top,
    top1,
)


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    return loss_of(TaskKind.CLASSIFICATION, logits, targets)


logit_arrays = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 8), st.integers(1, 6)),
    elements=st.floats(-1e4, 1e4, width=32),
)


def targets_for(logits: np.ndarray, data: st.DataObject) -> np.ndarray:
    rows, classes = logits.shape
    return data.draw(hnp.arrays(np.int64, rows, elements=st.integers(0, classes - 1)))


@given(logit_arrays, st.data())
def test_cross_entropy_is_torchs_in_double(logits: np.ndarray, data: st.DataObject):
    targets = targets_for(logits, data)
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).double(), torch.from_numpy(targets)
    )
    assert cross_entropy(logits, targets) == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)


@given(logit_arrays, st.data())
def test_accuracy_is_scikit_learns(logits: np.ndarray, data: st.DataObject):
    targets = targets_for(logits, data)
    assert np.array_equal(top1(logits), torch.from_numpy(logits).argmax(1).numpy())
    assert metric_of(TaskKind.CLASSIFICATION, logits, targets) == pytest.approx(
        accuracy_score(targets, top1(logits))
    )


@given(logit_arrays, st.data())
def test_errors_are_scikit_learns(values: np.ndarray, data: st.DataObject):
    targets = data.draw(
        hnp.arrays(np.float32, values.shape, elements=st.floats(-1e4, 1e4, width=32))
    )
    for ours, theirs in ((loss_of, mean_squared_error), (metric_of, mean_absolute_error)):
        expected = theirs(targets.astype(np.float64), values.astype(np.float64))
        assert ours(TaskKind.REGRESSION, values, targets) == pytest.approx(expected, rel=1e-9)


def test_uniform_logits_cost_the_logarithm_of_the_classes():
    assert cross_entropy(np.zeros((4, 10), np.float32), np.arange(4)) == pytest.approx(np.log(10))


def test_huge_logits_neither_overflow_nor_round_to_nothing():
    assert cross_entropy(np.array([[3e38, 0.0]], np.float32), np.array([0])) == 0.0
    assert cross_entropy(np.array([[1e30, 0.0]], np.float32), np.array([1])) == pytest.approx(1e30)


def test_a_masked_class_has_no_probability():
    logits = np.array([[0.0, 0.0, -np.inf]], np.float32)
    assert cross_entropy(logits, np.array([0])) == pytest.approx(np.log(2))
    assert cross_entropy(logits, np.array([2])) == np.inf


@pytest.mark.parametrize(
    ("a", "b", "share"), [([1, 2, 3, 4], [1, 2, 3, 4], 1.0), ([1, 2, 3, 4], [1, 2, 0, 0], 0.5)]
)
def test_share_of_equal_elements(a: list[int], b: list[int], share: float):
    assert share_equal(np.array(a), np.array(b)) == share


@given(logit_arrays, st.data())
def test_a_class_is_among_the_largest_as_a_stable_sort_has_it(
    logits: np.ndarray, data: st.DataObject
):
    targets = targets_for(logits, data)
    count = data.draw(st.integers(1, 6))
    order = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    assert share_in_top(logits, targets, count) == (order == targets[:, None]).any(axis=1).mean()
    assert share_in_top(logits, targets, 1) == share_equal(top1(logits), targets)


def test_log_loss_of_a_softmax_is_the_cross_entropy():
    logits = np.random.default_rng(0).normal(size=(20, 5))
    targets = np.arange(20) % 5
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert are_probabilities(shares)
    assert not are_probabilities(logits)
    assert log_loss_of(shares, targets) == pytest.approx(cross_entropy(logits, targets))
    assert np.isfinite(log_loss_of(np.array([[0.0, 1.0]]), np.array([0])))

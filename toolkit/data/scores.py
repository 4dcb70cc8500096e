"""Losses and metrics of model outputs, computed in the same way for all frameworks."""

from __future__ import annotations

import numpy as np

from toolkit.core.specs import TaskKind

LOSSES = {TaskKind.CLASSIFICATION: "cross-entropy", TaskKind.REGRESSION: "mse"}
METRICS = {TaskKind.CLASSIFICATION: "accuracy", TaskKind.REGRESSION: "mae"}


def loss_of(kind: TaskKind, outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean cross-entropy or the mean squared error, computed in float64.

    For classification, `outputs` are logits [N, C] and `targets` classes [N]; for regression, both
    are values [N, outputs], and the mean is over all of them.
    """
    exact = outputs.astype(np.float64)
    if kind is TaskKind.REGRESSION:
        return float(np.square(exact - targets).mean())
    shifted = exact - exact.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return float((log_sum - shifted[np.arange(len(targets)), targets]).mean())


def metric_of(kind: TaskKind, outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the top-1 accuracy for classification, or the mean absolute error for regression."""
    if kind is TaskKind.CLASSIFICATION:
        return share_equal(top1(outputs), targets)
    return float(np.abs(outputs.astype(np.float64) - targets).mean())


def top1(logits: np.ndarray) -> np.ndarray:
    """Return the class of the largest logit for each row of [N, C], the first of equal ones."""
    return np.asarray(logits.argmax(axis=1))


def share_equal(a: np.ndarray, b: np.ndarray) -> float:
    """Return the fraction of equal elements of two arrays of the same shape."""
    return float((a == b).mean())


def share_in_top(outputs: np.ndarray, targets: np.ndarray, count: int) -> float:
    """Return the fraction of rows of [N, C] whose class is among the `count` largest outputs.

    Of equal outputs, the class with the lower number comes first, as in `top1`.
    """
    own = outputs[np.arange(len(targets)), targets][:, np.newaxis]
    earlier = np.arange(outputs.shape[1]) < targets[:, np.newaxis]
    before = (outputs > own) | ((outputs == own) & earlier)
    return float((before.sum(axis=1) < count).mean())


def are_probabilities(outputs: np.ndarray) -> bool:
    """Return whether every row of [N, C] has values from 0 to 1 that sum to 1, as of a softmax.

    The sum may deviate by 1e-2, and a value may exceed 1 by 1e-6.
    """
    exact = outputs.astype(np.float64)
    whole = np.abs(exact.sum(axis=1) - 1).max(initial=0.0) <= 1e-2
    return bool(whole and (exact >= 0).all() and (exact <= 1 + 1e-6).all())


def log_loss_of(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean cross-entropy of probabilities [N, C] and classes [N], in float64.

    Probabilities below the smallest normal float32 count as that number.
    """
    own = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    return float(-np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean())

"""How good outputs are, computed here for every framework and runtime alike."""

from __future__ import annotations

import numpy as np

from toolkit.core.specs import TaskKind

LOSSES = {TaskKind.CLASSIFICATION: "cross-entropy", TaskKind.REGRESSION: "mse"}
METRICS = {TaskKind.CLASSIFICATION: "accuracy", TaskKind.REGRESSION: "mae"}


def loss_of(kind: TaskKind, outputs: np.ndarray, targets: np.ndarray) -> float:
    """In float64, the mean cross-entropy of logits [N, C] to classes [N], or the mean squared error
    over rows and values [N, outputs]."""
    exact = outputs.astype(np.float64)
    if kind is TaskKind.REGRESSION:
        return float(np.square(exact - targets).mean())
    shifted = exact - exact.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return float((log_sum - shifted[np.arange(len(targets)), targets]).mean())


def metric_of(kind: TaskKind, outputs: np.ndarray, targets: np.ndarray) -> float:
    """The share of rows whose largest output is their class, or the mean absolute error."""
    if kind is TaskKind.CLASSIFICATION:
        return share_equal(top1(outputs), targets)
    return float(np.abs(outputs.astype(np.float64) - targets).mean())


def top1(logits: np.ndarray) -> np.ndarray:
    """The class of the largest logit, for each row of [N, C]."""
    return np.asarray(logits.argmax(axis=1))


def share_equal(a: np.ndarray, b: np.ndarray) -> float:
    """The share of equal elements of two arrays of one shape."""
    return float((a == b).mean())

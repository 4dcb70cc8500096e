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


def share_in_top(outputs: np.ndarray, targets: np.ndarray, count: int) -> float:
    """The share of rows of [N, C] whose class is among the `count` of the largest outputs; of equal
    outputs the class with the lower number comes first, as in `top1`."""
    own = outputs[np.arange(len(targets)), targets][:, np.newaxis]
    earlier = np.arange(outputs.shape[1]) < targets[:, np.newaxis]
    before = (outputs > own) | ((outputs == own) & earlier)
    return float((before.sum(axis=1) < count).mean())


def are_probabilities(outputs: np.ndarray) -> bool:
    """Whether every row of [N, C] is of numbers from 0 to 1 that add up to 1, as of a softmax."""
    exact = outputs.astype(np.float64)
    whole = np.abs(exact.sum(axis=1) - 1).max(initial=0.0) <= 1e-2
    return bool(whole and (exact >= 0).all() and (exact <= 1 + 1e-6).all())


def log_loss_of(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """The mean cross-entropy of probabilities [N, C] to classes [N], in float64; one of 0 counts as
    the smallest float32 above it."""
    own = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    return float(-np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean())

"""Loss and accuracy of logits, computed here for every runtime alike."""

from __future__ import annotations

import numpy as np


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Mean of -log softmax(logits)[target], in float64; logits [N, C], targets [N] int64."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return float((log_sum - shifted[np.arange(len(targets)), targets]).mean())


def top1(logits: np.ndarray) -> np.ndarray:
    """The class of the largest logit, for each row of [N, C]."""
    return np.asarray(logits.argmax(axis=1))


def share_equal(a: np.ndarray, b: np.ndarray) -> float:
    """The share of equal elements of two arrays of one shape."""
    return float((a == b).mean())

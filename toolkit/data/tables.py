"""What data sets of numbers in columns share: the split, and columns brought to one scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from toolkit.core.specs import Task, TaskKind
from toolkit.data.base import Split, Splits

SPLIT_SEED = 0
TEST_FRACTION = 0.2
LEAST_ROWS = 5  # of which one is a test row


def split_rows(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of `count` rows train and which test, one in five, in an order of their own."""
    order = np.random.default_rng(SPLIT_SEED).permutation(count)
    tested = round(count * TEST_FRACTION)
    return order[tested:], order[:tested]


def regression(
    features: np.ndarray, targets: np.ndarray, columns: list[str], preprocessing: Mapping[str, Any]
) -> Splits:
    """Splits of rows [N, columns] and targets [N, outputs], as `standardised` has them."""
    task = Task(kind=TaskKind.REGRESSION, input_shape=(len(columns),), outputs=targets.shape[1])
    return standardised(task, features, targets.astype(np.float32), columns, preprocessing)


def standardised(
    task: Task,
    features: np.ndarray,
    targets: np.ndarray,
    columns: list[str],
    preprocessing: Mapping[str, Any],
) -> Splits:
    """Splits of rows [N, columns] float64, each column less its mean and over its standard
    deviation, both of the training rows; a column that has one value there is only centred.

    Inputs too large for float32, of a column that hardly varies in training, are float32's largest.
    """
    largest = np.finfo(np.float32).max
    train, test = split_rows(len(features))
    mean, std = features[train].mean(axis=0), features[train].std(axis=0)
    std[np.ptp(features[train], axis=0) == 0] = 1.0

    def split(rows: np.ndarray) -> Split:
        inputs = np.clip((features[rows] - mean) / std, -largest, largest).astype(np.float32)
        return Split(inputs=inputs, targets=targets[rows])

    return Splits(
        task=task,
        train=split(train),
        test=split(test),
        preprocessing={
            "columns": columns,
            "mean": mean.tolist(),
            "std": std.tolist(),
            "split_seed": SPLIT_SEED,
            **preprocessing,
        },
    )

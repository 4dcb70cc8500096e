"""Split and standardisation of tabular data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from toolkit.core.specs import Task, TaskKind
from toolkit.data.base import Split, Splits

SPLIT_SEED = 0
TEST_FRACTION = 0.2
LEAST_ROWS = 5  # one of them is a test sample


def split_rows(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random indices of training and test samples; TEST_FRACTION of `count` are for test.

    The seed is fixed.
    """
    order = np.random.default_rng(SPLIT_SEED).permutation(count)
    tested = round(count * TEST_FRACTION)
    return order[tested:], order[:tested]


def regression(
    features: np.ndarray, targets: np.ndarray, columns: list[str], preprocessing: Mapping[str, Any]
) -> Splits:
    """Return the splits of `standardised` for a regression with targets [N, outputs]."""
    task = Task(kind=TaskKind.REGRESSION, input_shape=(len(columns),), outputs=targets.shape[1])
    return standardised(task, features, targets.astype(np.float32), columns, preprocessing)


def standardised(
    task: Task,
    features: np.ndarray,
    targets: np.ndarray,
    columns: list[str],
    preprocessing: Mapping[str, Any],
) -> Splits:
    """Split samples, float64 [N, columns], and standardise each column to float32.

    The mean and standard deviation are those of the training samples. A column that is constant
    there is only centred. Inputs beyond the range of float32, which can occur if a column hardly
    varies in the training samples, are clipped to that range.
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

"""What a data set is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows of a data set, preprocessed: inputs [N, C, H, W] float32, targets [N] int64."""

    inputs: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Training rows, and test rows that no training sees.

    `preprocessing` says how raw values became inputs, so that a deployment can do the same.
    """

    train: Split
    test: Split
    preprocessing: Mapping[str, Any]


class DataSet(ABC):
    """A source of labelled rows for classification."""

    name: ClassVar[str]
    classes: ClassVar[int]
    shape: ClassVar[tuple[int, ...]]

    @abstractmethod
    def load(self) -> Splits:
        """The same rows in the same order at every call: the seed of the split is fixed."""

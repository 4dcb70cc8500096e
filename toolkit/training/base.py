"""What a trainer is, and what a training run records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from toolkit.core.documents import Json
from toolkit.core.errors import UsageError
from toolkit.core.progress import Progress
from toolkit.core.specs import ModelSpec
from toolkit.data.base import Splits


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """SGD with momentum; the learning rate falls from its start to zero along a half cosine."""

    epochs: int
    seed: int
    batch: int
    learning_rate: float
    momentum: float
    weight_decay: float

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"Got {name} {getattr(self, name)}, expected at least 1.",
                    hint=f"Give {name} of 1 or more.",
                )
        if not 0 <= self.seed < 2**63:
            raise UsageError(
                f"Got seed {self.seed}, expected 0 or more, and below 2**63.",
                hint="Give a seed of 0 or more.",
            )

    def to_json(self) -> Json:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch: its training took `train_ns`; the test rows gave `test_loss`, `test_accuracy`."""

    train_ns: int
    train_loss: float
    test_loss: float
    test_accuracy: float

    def to_json(self) -> Json:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The weights after the last finished epoch, and what each epoch came to.

    `interrupted` when Ctrl-C ended the run before the recipe's last epoch.
    """

    weights: Mapping[str, np.ndarray]
    history: tuple[Epoch, ...]
    interrupted: bool


class Trainer(ABC):
    """A training loop in one framework."""

    @abstractmethod
    def train(self, spec: ModelSpec, splits: Splits, recipe: Recipe, progress: Progress) -> Trained:
        """The same seed on the same machine and versions gives the same weights, bit for bit.

        On Ctrl-C after at least one epoch, gives what the finished epochs came to.
        """

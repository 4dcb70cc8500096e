"""Training recipe: the hyperparameters of a run, the same in all frameworks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.core.errors import UsageError
from toolkit.data.augment import STEPS
from toolkit.trainers.schedule import parse_schedule

OPTIMIZERS = ("sgd", "adam", "rmsprop")
# Default learning rates of an optimizer that replaces the family's.
RATES = {"sgd": 0.01, "adam": 0.001, "rmsprop": 0.001}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hyperparameters of a training run. Raises UsageError for invalid values.

    All frameworks use the formulas of torch.optim, for a parameter p with the gradient g:

    - sgd: v = momentum * v + g; p -= lr * v.
    - adam: betas 0.9 and 0.999, eps 1e-8 added to the root of the corrected second moment.
    - rmsprop: alpha 0.99, eps 1e-8 added to the root of s = alpha * s + (1 - alpha) * g * g;
      v = momentum * v + g / (sqrt(s) + eps); p -= lr * v.

    Weight decay is L2 for all: g += weight_decay * p comes first. `batch` is the number of samples
    per step. `schedule` is a text as in toolkit/trainers/schedule.py. `augmentation` names the
    steps of toolkit/data/augment.py that are applied to each batch, in order.
    """

    epochs: int
    seed: int
    batch: int
    learning_rate: float
    optimizer: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    augmentation: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            self._hold(name, lambda n: 1 <= n < 2**31, "1 or more, and below 2**31")
        self._hold("seed", lambda n: 0 <= n < 2**63, "0 or more, and below 2**63")
        self._hold("learning_rate", lambda n: 0 < n < float("inf"), "above 0")
        self._hold("momentum", lambda n: 0 <= n < 1, "0 or more, and below 1")
        self._hold("weight_decay", lambda n: 0 <= n < float("inf"), "0 or more")
        self._hold("optimizer", lambda name: name in OPTIMIZERS, " or ".join(OPTIMIZERS))
        if self.optimizer == "adam" and self.momentum:
            raise UsageError(
                f"Got momentum {self.momentum:g} with adam, expected none: its betas are fixed.",
                hint="Leave --momentum out, or give --optimizer sgd or rmsprop.",
            )
        if unknown := [name for name in self.augmentation if name not in STEPS]:
            raise UsageError(
                f"Got augmentation {unknown[0]!r}, expected {' or '.join(STEPS)}.",
                hint="Give --augment none to train on the rows as they are.",
            )
        if not np.isfinite(self.rates(self.epochs - 1, 1)).all():
            raise UsageError(
                f"Got schedule {self.schedule}, with which the learning rate grows beyond all "
                f"numbers in {self.epochs} epochs.",
                hint="Give --schedule a smaller factor.",
            )

    def _hold(self, name: str, fits: Callable[[Any], bool], expected: str) -> None:
        value = getattr(self, name)
        if not fits(value):
            raise UsageError(
                f"Got {name} {value}, expected {expected}.",
                hint=f"Give --{name.replace('_', '-')} {expected}.",
            )

    def rates(self, epoch: int, steps: int) -> np.ndarray:
        """Return the learning rate of each step of an epoch, float64 [steps]."""
        shape = parse_schedule(self.schedule)
        with np.errstate(over="ignore"):  # __post_init__ refuses infinite rates
            return self.learning_rate * shape(epoch, steps, self.epochs)

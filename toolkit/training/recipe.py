"""How a model is trained, the same in every framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.core.errors import UsageError
from toolkit.data.augment import STEPS
from toolkit.training.schedule import parse_schedule

OPTIMIZERS = ("sgd", "adam", "rmsprop")
RATES = {"sgd": 0.01, "adam": 0.001, "rmsprop": 0.001}  # of an optimizer that is not the family's


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One formula for each optimizer, that of torch.optim, in every framework.

    sgd: g += weight_decay p; v = momentum v + g; p -= lr v. adam: betas 0.9 and 0.999, eps 1e-8
    outside the root of the corrected second moment. rmsprop: alpha 0.99, eps 1e-8 outside the
    root, momentum as torch has it. Weight decay is added to the gradient in all (L2).
    `augmentation` names steps of toolkit/data/augment.py; None means those of the data set.
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
        with np.errstate(over="ignore"):  # to infinity, which __post_init__ refuses
            return self.learning_rate * shape(epoch, steps, self.epochs)

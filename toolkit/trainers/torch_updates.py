"""Optimizers of torch.optim as pure functions, for the compiled loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch

from toolkit.trainers.recipe import Recipe

BETAS = (0.9, 0.999)
ALPHA = 0.99
EPSILON = 1e-8

Slots = Sequence[torch.Tensor]


class Update(Protocol):
    """Function that returns the parameter and its slots after a step, and changes no argument.

    `numbers` [2] is the step's row of `step_numbers`.
    """

    def __call__(
        self, value: torch.Tensor, gradient: torch.Tensor, slots: Slots, numbers: torch.Tensor
    ) -> tuple[torch.Tensor, Slots]: ...


def slot_names(recipe: Recipe) -> tuple[str, ...]:
    """Return the names in torch.optim of the tensors that the optimizer keeps per parameter.

    Each is zero before the first step.
    """
    if recipe.optimizer == "adam":
        return ("exp_avg", "exp_avg_sq")
    momentum = ("momentum_buffer",) if recipe.momentum else ()
    return (*(("square_avg",) if recipe.optimizer == "rmsprop" else ()), *momentum)


def step_numbers(recipe: Recipe, rates: np.ndarray, done: int) -> np.ndarray:
    """Return the values that differ between steps, float32 [steps, 2], after `done` earlier steps.

    Columns: the learning rate and 1; for adam, the learning rate divided by the first bias
    correction, and the root of the second.
    """
    if recipe.optimizer != "adam":
        return np.stack([rates, np.ones_like(rates)], axis=1).astype(np.float32)
    count = np.arange(done + 1, done + 1 + len(rates), dtype=np.float64)
    first, second = (1 - beta**count for beta in BETAS)
    return np.stack([rates / first, np.sqrt(second)], axis=1).astype(np.float32)


def update_of(recipe: Recipe) -> Update:
    """Return the step of the recipe's optimizer, as defined by toolkit.trainers.recipe.Recipe."""
    rule = UPDATES[recipe.optimizer]
    decay, momentum = recipe.weight_decay, recipe.momentum

    def update(
        value: torch.Tensor, gradient: torch.Tensor, slots: Slots, numbers: torch.Tensor
    ) -> tuple[torch.Tensor, Slots]:
        if decay:
            gradient = gradient + decay * value
        return rule(value, gradient, slots, numbers, momentum)

    return update


class _Rule(Protocol):
    def __call__(
        self,
        value: torch.Tensor,
        gradient: torch.Tensor,
        slots: Slots,
        numbers: torch.Tensor,
        momentum: float,
    ) -> tuple[torch.Tensor, Slots]: ...


def _sgd(
    value: torch.Tensor,
    gradient: torch.Tensor,
    slots: Slots,
    numbers: torch.Tensor,
    momentum: float,
) -> tuple[torch.Tensor, Slots]:
    if momentum:
        gradient = momentum * slots[0] + gradient
        slots = (gradient,)
    return value - numbers[0] * gradient, slots


def _adam(
    value: torch.Tensor,
    gradient: torch.Tensor,
    slots: Slots,
    numbers: torch.Tensor,
    momentum: float,
) -> tuple[torch.Tensor, Slots]:
    first = torch.lerp(slots[0], gradient, 1 - BETAS[0])
    second = slots[1] * BETAS[1] + gradient * gradient * (1 - BETAS[1])
    root = second.sqrt() / numbers[1] + EPSILON
    return value - numbers[0] * (first / root), (first, second)


def _rmsprop(
    value: torch.Tensor,
    gradient: torch.Tensor,
    slots: Slots,
    numbers: torch.Tensor,
    momentum: float,
) -> tuple[torch.Tensor, Slots]:
    square = slots[0] * ALPHA + gradient * gradient * (1 - ALPHA)
    step = gradient / (square.sqrt() + EPSILON)
    if not momentum:
        return value - numbers[0] * step, (square,)
    step = momentum * slots[1] + step
    return value - numbers[0] * step, (square, step)


UPDATES: Mapping[str, _Rule] = {"sgd": _sgd, "adam": _adam, "rmsprop": _rmsprop}

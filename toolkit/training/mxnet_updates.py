"""The formulas of toolkit.training.recipe.Recipe on MXNet's arrays.

MXNet's own differ: its SGD keeps the learning rate inside the momentum, so that a changed rate
acts late; its RMSprop adds epsilon inside the root.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import mxnet as mx

from toolkit.training.recipe import Recipe

Array = Any
Slots = dict[str, Array]
"""What an optimizer keeps of one parameter, zeros before the first step."""

BETAS = (0.9, 0.999)
ALPHA = 0.99
EPSILON = 1e-8

SLOTS: Mapping[str, tuple[str, ...]] = {
    "sgd": ("momentum",),
    "adam": ("first", "second"),
    "rmsprop": ("square", "momentum"),
}

Update = Callable[[Array, Array, Slots, Recipe, float, int], None]
"""(parameter, gradient, slots, recipe, learning rate, step from 1): changes the first in place,
and the slots; the gradient may be overwritten."""


def sgd(
    parameter: Array, gradient: Array, slots: Slots, recipe: Recipe, rate: float, step: int
) -> None:
    _decay(parameter, gradient, recipe)
    _descend(parameter, gradient, slots, recipe, rate)


def adam(
    parameter: Array, gradient: Array, slots: Slots, recipe: Recipe, rate: float, step: int
) -> None:
    """MXNet's own kernel has no corrections: both go into the rate and epsilon of the step."""
    first, second = (1 - beta**step for beta in BETAS)
    mx.nd.adam_update(
        parameter,
        gradient,
        slots["first"],
        slots["second"],
        lr=rate * math.sqrt(second) / first,
        beta1=BETAS[0],
        beta2=BETAS[1],
        epsilon=EPSILON * math.sqrt(second),
        wd=recipe.weight_decay,
        out=parameter,
    )


def rmsprop(
    parameter: Array, gradient: Array, slots: Slots, recipe: Recipe, rate: float, step: int
) -> None:
    _decay(parameter, gradient, recipe)
    square = slots["square"]
    square *= ALPHA
    square += (1 - ALPHA) * gradient * gradient
    gradient /= square.sqrt() + EPSILON
    _descend(parameter, gradient, slots, recipe, rate)


def _decay(parameter: Array, gradient: Array, recipe: Recipe) -> None:
    if recipe.weight_decay:
        gradient += recipe.weight_decay * parameter


def _descend(parameter: Array, direction: Array, slots: Slots, recipe: Recipe, rate: float) -> None:
    if recipe.momentum:
        momentum = slots["momentum"]
        momentum *= recipe.momentum
        momentum += direction
        direction = momentum
    parameter -= rate * direction


UPDATES: Mapping[str, Update] = {"sgd": sgd, "adam": adam, "rmsprop": rmsprop}

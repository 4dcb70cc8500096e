"""Optimizer steps on MXNet arrays, as defined by toolkit.trainers.recipe.Recipe.

The optimizers of MXNet differ: its SGD includes the learning rate in the momentum, which delays the
effect of a changed rate; its RMSprop adds epsilon inside the root.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import mxnet as mx

from toolkit.trainers.recipe import Recipe

Array = Any
Slots = dict[str, Array]
"""Arrays that an optimizer keeps for one parameter, by name; zeros before the first step."""

BETAS = (0.9, 0.999)
ALPHA = 0.99
EPSILON = 1e-8

SLOTS: Mapping[str, tuple[str, ...]] = {
    "sgd": ("momentum",),
    "adam": ("first", "second"),
    "rmsprop": ("square", "momentum"),
}

Update = Callable[[Array, Array, Slots, Recipe, float, int], None]
"""(parameter, gradient, slots, recipe, learning rate, step) -> None; the first step is 1.

Updates the parameter and the slots in place, and may overwrite the gradient.
"""


def sgd(
    parameter: Array, gradient: Array, slots: Slots, recipe: Recipe, rate: float, step: int
) -> None:
    _decay(parameter, gradient, recipe)
    _descend(parameter, gradient, slots, recipe, rate)


def adam(
    parameter: Array, gradient: Array, slots: Slots, recipe: Recipe, rate: float, step: int
) -> None:
    """Run MXNet's kernel, which lacks the bias corrections.

    They are applied to the learning rate and epsilon instead.
    """
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

"""Optimizer steps for TensorFlow and JAX, as defined by toolkit.trainers.recipe.Recipe.

The optimizers of Keras and optax differ from those of torch.optim, and from each other, in the
position of eps, in the momentum after a change of the learning rate, and in weight decay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from toolkit.trainers.recipe import Recipe

BETA1, BETA2 = 0.9, 0.999
ALPHA = 0.99
EPSILON = 1e-8

Array = Any
"""NumPy array, or tensor of a framework with the same arithmetic operators."""


def slots(recipe: Recipe) -> tuple[str, ...]:
    """Return the names of the arrays that the optimizer keeps for each parameter.

    Each has the shape of the parameter, and is zero before the first step.
    """
    if recipe.optimizer == "adam":
        return ("mean", "square")
    momentum = ("momentum",) if recipe.momentum else ()
    return momentum if recipe.optimizer == "sgd" else ("square", *momentum)


def scales(recipe: Recipe, done: int, rates: np.ndarray) -> np.ndarray:
    """Return the `scale` argument of `update` for each step, float32 [steps, 2].

    Columns: the learning rate, for adam divided by the correction of the first moment; the root of
    the correction of the second moment, 1 for other optimizers. `done` is the number of earlier
    steps. The computation is in float64, because in float32 the first values of 1 - 0.999^t would
    have only four correct digits.
    """
    steps = done + 1 + np.arange(len(rates))
    if recipe.optimizer != "adam":
        return np.stack([rates, np.ones_like(rates)], axis=1).astype(np.float32)
    return np.stack(
        [rates / (1 - BETA1**steps), np.sqrt(1 - BETA2**steps)], axis=1, dtype=np.float64
    ).astype(np.float32)


def update(
    recipe: Recipe,
    parameter: Array,
    gradient: Array,
    kept: Sequence[Array],
    scale: Array,
    sqrt: Callable[[Array], Array],
) -> tuple[Array, tuple[Array, ...]]:
    """Return the parameter and its slots after a step, in new arrays.

    `kept` are the slots in the order of `slots`. `scale` [2] is the step's row of `scales`. `sqrt`
    is the square root of the framework.
    """
    if recipe.weight_decay:
        gradient = gradient + recipe.weight_decay * parameter
    if recipe.optimizer == "adam":
        mean = kept[0] + (gradient - kept[0]) * (1 - BETA1)
        square = BETA2 * kept[1] + (1 - BETA2) * gradient * gradient
        change = mean / (sqrt(square) / scale[1] + EPSILON)
        return parameter - scale[0] * change, (mean, square)
    after: tuple[Array, ...] = ()
    if recipe.optimizer == "rmsprop":
        square = ALPHA * kept[0] + (1 - ALPHA) * gradient * gradient
        gradient = gradient / (sqrt(square) + EPSILON)
        after = (square,)
    if recipe.momentum:
        gradient = recipe.momentum * kept[-1] + gradient
        after = (*after, gradient)
    return parameter - scale[0] * gradient, after

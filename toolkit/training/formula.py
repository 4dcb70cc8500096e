"""The optimizers of a recipe, one formula for every framework that has none of its own like it.

That of torch.optim, see toolkit.training.recipe.Recipe. Keras' and optax' optimizers differ from it
and from each other: in where eps stands, in momentum when the learning rate changes, in weight
decay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from toolkit.training.recipe import Recipe

BETA1, BETA2 = 0.9, 0.999
ALPHA = 0.99
EPSILON = 1e-8

Array = Any
"""A NumPy array, or a tensor of any framework with its operators."""


def slots(recipe: Recipe) -> tuple[str, ...]:
    """What is kept for each parameter, in its shape, from zeros on."""
    if recipe.optimizer == "adam":
        return ("mean", "square")
    momentum = ("momentum",) if recipe.momentum else ()
    return momentum if recipe.optimizer == "sgd" else ("square", *momentum)


def scales(recipe: Recipe, done: int, rates: np.ndarray) -> np.ndarray:
    """What `update` takes of each step, float32 [steps, 2]: how far, and the root's correction.

    `done` steps came before. Found in float64: in float32, 1 - 0.999^t would be four digits.
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
    """The parameter and its slots after a step. `scale` [2] is the step's of `scales`."""
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

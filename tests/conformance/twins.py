"""How a module of each framework is run, on images with the channels first as torch has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Run = Callable[[Any, np.ndarray], np.ndarray]


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def _torch(module: Any, x: np.ndarray) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return module.eval()(torch.from_numpy(x)).numpy()


def _torch_training(module: Any, x: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return module.train()(torch.from_numpy(x)).numpy()


def _keras(module: Any, x: np.ndarray) -> np.ndarray:
    return module(channels_last(x), training=False).numpy()


def _keras_training(module: Any, x: np.ndarray) -> np.ndarray:
    return module(channels_last(x), training=True).numpy()


def _flax(module: Any, x: np.ndarray) -> np.ndarray:
    import jax

    return np.asarray(jax.jit(module.module.apply)(module.variables, channels_last(x)))


def _flax_training(module: Any, x: np.ndarray) -> np.ndarray:
    import jax

    def step(variables: Any, x: Any) -> Any:
        return module.module.apply(variables, x, train=True, mutable=["batch_stats"])

    outputs, moved = jax.jit(step)(module.variables, channels_last(x))
    module.variables = {**module.variables, **moved}
    return np.asarray(outputs)


EVALUATE: Mapping[str, Run] = {"torch": _torch, "tensorflow": _keras, "jax": _flax}
TRAIN: Mapping[str, Run] = {
    "torch": _torch_training,
    "tensorflow": _keras_training,
    "jax": _flax_training,
}

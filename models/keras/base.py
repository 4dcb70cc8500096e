"""Base class of the Keras builders, and functions on the variables of a Keras model."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import final

import keras
import numpy as np

from models.base import Builder, Size, Weights
from models.weights import from_keras, refuse_misfit, to_keras
from toolkit.core.errors import UnavailableError, UsageError
from toolkit.core.specs import ModelSpec

if keras.backend.backend() != "tensorflow":
    raise UnavailableError(
        f"Keras runs on {keras.backend.backend()}, expected TensorFlow.",
        hint="Unset KERAS_BACKEND, or set it to tensorflow, and look into ~/.keras/keras.json.",
    )


class KerasBuilder(Builder):
    """Builder of functional Keras models, with images channels last and layers named as in torch.

    An image model takes [N, H, W, C] float32 where the signature has [N, C, H, W], and returns
    [N, outputs] float32, logits without a softmax. With `model(x, training=True)`, batch norms use
    the statistics of the batch and update the running ones, and dropout is active; with
    `training=False` none of this happens. The running statistics are in
    `model.non_trainable_variables`, and are the second result of `stateless_call`. The random state
    of dropout is in `model.variables` but not in `model.weights`; `reseed` sets it.
    """

    @abstractmethod
    def build(self, spec: ModelSpec) -> keras.Model: ...

    @final
    def weights(self, module: keras.Model) -> dict[str, np.ndarray]:
        return from_keras({variable.path: variable.numpy() for variable in module.weights})

    @final
    def restore(self, module: keras.Model, weights: Weights) -> None:
        refuse_misfit(self.weights(module), weights)
        arrays = to_keras(weights)
        for variable in module.weights:
            layer, _, kind = variable.path.rpartition("/")
            variable.assign(arrays[f"{layer.replace('/', '.')}/{kind}"])

    @final
    def size(self, spec: ModelSpec) -> Size:
        module = self.build(spec)
        return Size(
            parameters=sum(math.prod(v.shape) for v in module.trainable_variables),
            state_dict_bytes=sum(array.nbytes for array in self.weights(module).values()),
        )


def reseed(module: keras.Model, seed: int) -> None:
    """Reset each random generator of the model from `seed`, which is 0 or more, and its position.

    This includes the dropouts of nested layers and models.
    """
    drawn = [v for v in module.variables if v.path.endswith("seed_generator_state")]
    for number, state in enumerate(drawn):
        stream = int(np.random.default_rng([seed, number]).integers(2**31))
        state.assign([stream, 0])


def by_path(model: keras.Model) -> dict[str, np.ndarray]:
    """Return copies of all weights by path. Raises UsageError if two have the same path."""
    found = {variable.path: np.array(variable.numpy()) for variable in model.weights}
    if len(found) < len(model.weights):
        raise UsageError(
            "Two variables of the Keras model have the same path.",
            hint="Give its layers names of their own.",
        )
    return found

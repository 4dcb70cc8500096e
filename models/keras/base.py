"""What the Keras builders of all families share."""

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
    """A builder of functional Keras models: images channels last, layers named as torch's.

    An image model takes [N, H, W, C] float32 where the signature says [N, C, H, W], and gives
    [N, outputs] float32, logits without a softmax. `model(x, training=True)` takes the statistics
    of the batch in batch norms, moves the running ones (which are `model.non_trainable_variables`;
    in `stateless_call` they come back as the second result) and drops values; `training=False`
    does none of this. What dropout draws is in a state of its own, among `model.variables` but not
    among `model.weights`: `reseed` sets it.
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
    """Lets whatever in the model draws at random do so anew from `seed` (0 or more) and its place.

    Dropouts inside of layers and models inside of it too.
    """
    drawn = [v for v in module.variables if v.path.endswith("seed_generator_state")]
    for number, state in enumerate(drawn):
        stream = int(np.random.default_rng([seed, number]).integers(2**31))
        state.assign([stream, 0])


def by_path(model: keras.Model) -> dict[str, np.ndarray]:
    """Copies of all weights. Raises UsageError when two have the same path."""
    found = {variable.path: np.array(variable.numpy()) for variable in model.weights}
    if len(found) < len(model.weights):
        raise UsageError(
            "Two variables of the Keras model have the same path.",
            hint="Give its layers names of their own.",
        )
    return found

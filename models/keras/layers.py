"""Layers of the Keras models, with the semantics of torch.

All take and return float32, images as [N, H, W, C], regardless of ~/.keras/keras.json. `name` is
the path of the torch module that has the same weights.
"""

from __future__ import annotations

from typing import Any, final

import keras
from keras import ops

from models.base import INPUT
from toolkit.core.specs import ModelSpec

NHWC = "channels_last"
EPSILON = 1e-5
MOMENTUM = 0.1

Tensor = Any


def rows(spec: ModelSpec) -> Tensor:
    """Return the input of a model: the task's input shape, with the channels of images last."""
    assert spec.task is not None
    channels, *sides = spec.task.input_shape
    return keras.Input((*sides, channels), dtype="float32", name=INPUT)


def conv(
    x: Tensor, name: str, maps: int, side: int, *, stride: int = 1, pad: int = 0, bias: bool = True
) -> Tensor:
    """Apply a `side` x `side` convolution to x, padded by `pad` zeros on each side."""
    if pad:  # Keras' own "same" pads unevenly where the stride is above 1
        x = keras.layers.ZeroPadding2D(pad, data_format=NHWC, dtype="float32")(x)
    return keras.layers.Conv2D(
        maps,
        side,
        strides=stride,
        use_bias=bias,
        data_format=NHWC,
        dtype="float32",
        name=name,
    )(x)


def dense(x: Tensor, name: str, units: int) -> Tensor:
    """Apply a dense layer: [N, features] -> [N, units]."""
    return keras.layers.Dense(units, dtype="float32", name=name)(x)


def max_pool(x: Tensor) -> Tensor:
    """Apply a 2x2 max-pooling; a last odd row or column is left out."""
    return keras.layers.MaxPooling2D(2, data_format=NHWC, dtype="float32")(x)


def dropout(x: Tensor, rate: float) -> Tensor:
    return keras.layers.Dropout(rate, dtype="float32")(x)


def flatten(x: Tensor) -> Tensor:
    """Flatten [N, H, W, C] to [N, C * H * W], in torch's order."""
    x = keras.layers.Permute((3, 1, 2), dtype="float32")(x)
    return keras.layers.Flatten(data_format=NHWC, dtype="float32")(x)


def batch_norm(x: Tensor, name: str) -> Tensor:
    return BatchNorm(name=name, dtype="float32")(x)


@final
class BatchNorm(keras.layers.Layer):
    """Batch norm over the last axis with torch's semantics, eps 1e-5, momentum 0.1.

    Keras' own layer updates the running variance with the biased variance of the batch. This layer
    uses the unbiased estimate, n / (n - 1) times as large, as torch does.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        def weight(name: str, initial: str, trainable: bool) -> Any:
            return self.add_weight(
                name=name, shape=input_shape[-1:], initializer=initial, trainable=trainable
            )

        self.gamma = weight("gamma", "ones", True)
        self.beta = weight("beta", "zeros", True)
        self.moving_mean = weight("moving_mean", "zeros", False)
        self.moving_variance = weight("moving_variance", "ones", False)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        mean, variance = self.moving_mean, self.moving_variance
        if training:
            axes = tuple(range(len(inputs.shape) - 1))
            mean, variance = ops.moments(inputs, axes)
            count = ops.cast(ops.prod(ops.shape(inputs)[:-1]), "float32")
            self._move(self.moving_mean, mean)
            self._move(self.moving_variance, variance * (count / (count - 1)))
        return ops.batch_normalization(
            inputs, mean, variance, axis=-1, offset=self.beta, scale=self.gamma, epsilon=EPSILON
        )

    def _move(self, running: Any, seen: Tensor) -> None:
        running.assign((1 - MOMENTUM) * running + MOMENTUM * seen)

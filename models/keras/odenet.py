"""Trunk with residual or ODE stages in Keras."""

from __future__ import annotations

from typing import final

import keras
import tensorflow as tf
from keras import ops

from models.keras.base import KerasBuilder
from models.keras.layers import (
    EPSILON,
    MOMENTUM,
    NHWC,
    BatchNorm,
    Tensor,
    batch_norm,
    conv,
    dense,
    flatten,
    rows,
)
from models.keras.ode import SOLVES
from models.ode import Grid
from toolkit.core.specs import ModelSpec

APPLICATIONS = 2  # how often one pass applies a block's convolution and batch norm


@final
class OdeLayer(keras.layers.Layer):
    """ODE layer on [N, H, W, C]: integrates the dynamics of models/torch/odenet.py to h(1)."""

    def __init__(self, grid: Grid, gradient: str, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.grid = grid
        self.solve = SOLVES[gradient]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        *sides, channels = input_shape
        assert channels is not None
        self.conv = keras.layers.Conv2D(
            channels, 3, padding="same", data_format=NHWC, dtype="float32", name="conv"
        )
        self.conv.build((*sides, channels + 1))
        self.bn = BatchNorm(name="bn", dtype="float32")
        self.bn.build((*sides, channels))

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        fixed = () if training else (self.bn.moving_mean, self.bn.moving_variance)
        read = (self.conv.kernel, self.conv.bias, self.bn.gamma, self.bn.beta, *fixed)
        coefficients = [tf.convert_to_tensor(each) for each in read]
        state, *sums = self.solve(_derivative, self.grid, inputs, coefficients)
        if training:
            moving = (self.bn.moving_mean, self.bn.moving_variance)
            for running, total in zip(moving, sums, strict=True):
                mean = total / self.grid.steps
                running.assign((1 - MOMENTUM) * running + MOMENTUM * mean)
        return state


def _derivative(
    time: float,
    state: Tensor,
    kernel: Tensor,
    bias: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *fixed: Tensor,
) -> tuple[Tensor, ...]:
    """Return ReLU(BN(conv([h, t]))) applied twice.

    With a `fixed` mean and variance, the batch norm uses them. Otherwise it uses the statistics of
    the batch, and also returns their mean and unbiased variance, averaged over both applications.
    """
    means, variances = [], []
    for _ in range(APPLICATIONS):
        state = tf.concat([state, tf.fill(tf.shape(state[..., :1]), time)], axis=-1)
        state = tf.nn.conv2d(state, kernel, 1, "SAME") + bias
        mean, variance = fixed or tf.nn.moments(state, (0, 1, 2))
        if not fixed:
            count = tf.cast(tf.size(state[..., 0]), "float32")
            means.append(tf.stop_gradient(mean))
            variances.append(tf.stop_gradient(variance * (count / (count - 1))))
        state = tf.nn.batch_normalization(state, mean, variance, beta, gamma, EPSILON)
        state = tf.nn.relu(state)
    if fixed:
        return (state,)
    return state, tf.add_n(means) / APPLICATIONS, tf.add_n(variances) / APPLICATIONS


@final
class TrunkBuilder(KerasBuilder):
    """[N, 32, 32, 3] float32 -> [N, classes] float32."""

    def build(self, spec: ModelSpec) -> keras.Model:
        assert spec.task is not None
        settings = spec.hyperparameters

        def residual(x: Tensor, name: str) -> Tensor:
            for block in range(settings["blocks"]):
                x = _residual(x, f"{name}.{block}")
            return x

        def ode(x: Tensor, name: str) -> Tensor:
            grid = Grid.of_accuracy(settings["accuracy"])
            return OdeLayer(grid, settings["gradient"], f"{name}.dynamics")(x)

        first = ode if spec.family == "odenet" else residual
        second = residual if spec.family == "resnet" else ode
        images = rows(spec)
        x = _narrowed(_narrowed(images, 1, 16), 2, 32)
        x = second(_narrowed(first(x, "stage1"), 3, 64), "stage2")
        x = flatten(_mean_pool(x))
        return keras.Model(images, dense(x, "fc", spec.task.outputs), name=spec.name)


def _narrowed(x: Tensor, number: int, maps: int) -> Tensor:
    """Apply convolution and batch norm number `number`, a ReLU and a 2x2 average pooling."""
    x = conv(x, f"conv{number}", maps, 3, pad=1)
    return _mean_pool(ops.relu(batch_norm(x, f"bn{number}")))


def _mean_pool(x: Tensor) -> Tensor:
    return keras.layers.AveragePooling2D(2, data_format=NHWC, dtype="float32")(x)


def _residual(x: Tensor, name: str) -> Tensor:
    """Apply ReLU(BN(conv)) twice with the same weights, then add the shortcut, then a ReLU."""
    convolution = keras.layers.Conv2D(
        x.shape[-1], 3, padding="same", data_format=NHWC, dtype="float32", name=f"{name}.conv"
    )
    norm = BatchNorm(name=f"{name}.bn", dtype="float32")
    h = x
    for _ in range(APPLICATIONS):
        h = ops.relu(norm(convolution(h)))
    return ops.relu(h + x)

"""Layers of the Flax models, with the semantics of torch.

Images are [N, H, W, C]. `name` is the path of the torch module that has the same weights. Call the
functions inside a compact `__call__`.
"""

from __future__ import annotations

import math
from typing import final

import flax.linen as nn
import jax
import jax.numpy as jnp

EPSILON = 1e-5
MOMENTUM = 0.1


def conv(
    x: jax.Array,
    name: str,
    maps: int,
    side: int,
    *,
    stride: int = 1,
    pad: int = 0,
    bias: bool = True,
) -> jax.Array:
    """Apply a `side` x `side` convolution to x, padded by `pad` zeros on each side."""
    layer = nn.Conv(
        maps, (side, side), strides=stride, padding=((pad, pad),) * 2, use_bias=bias, name=name
    )
    return layer(x)


def dense(x: jax.Array, name: str, units: int) -> jax.Array:
    """Apply a dense layer: [N, features] -> [N, units]."""
    return nn.Dense(units, name=name)(x)


def max_pool(x: jax.Array) -> jax.Array:
    """Apply a 2x2 max-pooling; a last odd row or column is left out."""
    return nn.max_pool(x, (2, 2), strides=(2, 2))


def flatten(x: jax.Array) -> jax.Array:
    """Flatten [N, H, W, C] to [N, C * H * W], in torch's order."""
    return jnp.transpose(x, (0, 3, 1, 2)).reshape(x.shape[0], -1)


def batch_norm(x: jax.Array, name: str, train: bool) -> jax.Array:
    return BatchNorm(name=name)(x, train)


@final
class BatchNorm(nn.Module):
    """Batch norm over the last axis with torch's semantics, eps 1e-5, momentum 0.1.

    Flax's own module updates the running variance with the biased variance of the batch. This
    module uses the unbiased estimate, n / (n - 1) times as large, as torch does.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        mean, variance = running_mean.value, running_var.value
        if train:
            axes = tuple(range(x.ndim - 1))
            mean, variance = x.mean(axes), x.var(axes)
            if not self.is_initializing():
                count = math.prod(x.shape[:-1])
                _move(running_mean, mean)
                _move(running_var, variance * (count / (count - 1)))
        return (x - mean) * (scale * jax.lax.rsqrt(variance + EPSILON)) + bias


def _move(running: nn.Variable, seen: jax.Array) -> None:
    running.value = (1 - MOMENTUM) * running.value + MOMENTUM * seen

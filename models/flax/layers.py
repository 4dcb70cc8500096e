"""The layers that the Flax twins are made of, each as torch defines it.

Images are [N, H, W, C]. `name` is the path of the torch module that has the same weights. To be
called inside a compact `__call__`.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


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
    """A `side` x `side` convolution over x with `pad` rows and columns of zeros around it."""
    layer = nn.Conv(
        maps, (side, side), strides=stride, padding=((pad, pad),) * 2, use_bias=bias, name=name
    )
    return layer(x)


def dense(x: jax.Array, name: str, units: int) -> jax.Array:
    """[N, features] -> [N, units]."""
    return nn.Dense(units, name=name)(x)


def max_pool(x: jax.Array) -> jax.Array:
    """The largest of each 2x2; a last odd row or column is left out."""
    return nn.max_pool(x, (2, 2), strides=(2, 2))


def flatten(x: jax.Array) -> jax.Array:
    """[N, H, W, C] -> [N, C * H * W], in torch's order."""
    return jnp.transpose(x, (0, 3, 1, 2)).reshape(x.shape[0], -1)

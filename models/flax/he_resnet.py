"""ResNets with 6n+2 layers in Flax."""

from __future__ import annotations

from typing import final

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.flax.base import FlaxBuilder
from models.flax.layers import batch_norm, conv, dense
from models.he_resnet import BLOCKS, WIDTHS
from toolkit.core.specs import ModelSpec


@final
class HeResNetModule(nn.Module):
    """[N, side, side, 3] float32 -> [N, classes] float32, with n blocks per stage."""

    n: int
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = conv(x, "conv1", WIDTHS[0], 3, pad=1, bias=False)
        x = nn.relu(batch_norm(x, "bn1", train))
        for stage, width in enumerate(WIDTHS):
            for block in range(self.n):
                x = _block(x, f"stages.{stage}.{block}", width, train)
        return dense(x.mean(axis=(1, 2)), "fc", self.classes)


def _block(x: jax.Array, name: str, given: int, train: bool) -> jax.Array:
    """Apply a block: [N, H, W, C] -> [N, H, W, given], with halved H and W if `given` is not C."""
    more = given - x.shape[-1]
    stride = 2 if more else 1
    h = conv(x, f"{name}.conv1", given, 3, stride=stride, pad=1, bias=False)
    h = nn.relu(batch_norm(h, f"{name}.bn1", train))
    h = conv(h, f"{name}.conv2", given, 3, pad=1, bias=False)
    h = batch_norm(h, f"{name}.bn2", train)
    if more:
        x = jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, more)))
    return nn.relu(h + x)


@final
class HeResNetBuilder(FlaxBuilder):
    def module(self, spec: ModelSpec) -> nn.Module:
        assert spec.task is not None
        return HeResNetModule(BLOCKS[spec.family], spec.task.outputs)

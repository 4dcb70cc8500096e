"""LeNet in Flax."""

from __future__ import annotations

from typing import final

import flax.linen as nn
import jax

from models.flax.base import FlaxBuilder
from models.flax.layers import conv, dense, flatten, max_pool
from toolkit.core.specs import ModelSpec


@final
class LeNetModule(nn.Module):
    """[N, 32, 32, 3] float32 -> [N, classes] float32."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = max_pool(nn.relu(conv(x, "conv1", 6, 5)))
        x = max_pool(nn.relu(conv(x, "conv2", 16, 5)))
        x = flatten(x)
        x = nn.relu(dense(x, "fc1", 120))
        x = nn.relu(dense(x, "fc2", 84))
        return dense(x, "fc3", self.classes)


@final
class LeNetBuilder(FlaxBuilder):
    def module(self, spec: ModelSpec) -> nn.Module:
        assert spec.task is not None
        return LeNetModule(spec.task.outputs)

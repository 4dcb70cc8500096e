"""MLP in Flax."""

from __future__ import annotations

from typing import final

import flax.linen as nn
import jax

from models.flax.base import FlaxBuilder
from models.flax.layers import dense
from toolkit.core.specs import ModelSpec


@final
class MLPModule(nn.Module):
    """[N, features] float32 -> [N, outputs] float32."""

    hidden: int
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return dense(nn.relu(dense(x, "fc1", self.hidden)), "fc2", self.outputs)


@final
class MLPBuilder(FlaxBuilder):
    def module(self, spec: ModelSpec) -> nn.Module:
        assert spec.task is not None
        return MLPModule(spec.hyperparameters["hidden"], spec.task.outputs)

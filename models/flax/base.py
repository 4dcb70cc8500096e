"""Base class of the Flax builders, and a Flax module with its variables."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, final

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from models.base import Builder, Size, Weights
from models.weights import FlaxVariables, from_flax, refuse_misfit, to_flax
from toolkit.core.specs import ModelSpec


@final
@dataclass
class FlaxModel:
    """Flax module, which is stateless, together with its variables.

    `variables` has the collections `params` and, with batch norms, `batch_stats`; each maps
    layer -> leaf -> array. To differentiate by the variables, call `model.module.apply`; after
    training, assign the new values to `model.variables`.
    """

    module: nn.Module
    variables: dict[str, Any]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the outputs in evaluation mode."""
        outputs: jax.Array = self.module.apply(self.variables, x)
        return outputs


class FlaxBuilder(Builder):
    """Builder of Flax (linen) modules, with images channels last and layers named as in torch.

    An image model takes [N, H, W, C] float32 where the signature has [N, C, H, W], and returns
    [N, outputs] float32, logits without a softmax. All models take `train`:

        outputs, moved = model.module.apply(
            {"params": params, "batch_stats": batch_stats}, x, train=True, mutable=["batch_stats"]
        )

    Batch norms then use the statistics of the batch, and `moved["batch_stats"]` holds the updated
    running statistics. Without `train`, batch norms use the running statistics and leave them
    unchanged. A model without batch norms has no `batch_stats`, and returns none. No family here
    has dropout. `build` fills the variables with zeros, so restore weights before use.
    """

    @abstractmethod
    def module(self, spec: ModelSpec) -> nn.Module:
        """Return the module; its layers are all at top level, named by their full torch path."""

    @final
    def build(self, spec: ModelSpec) -> FlaxModel:
        module, shapes = self._shapes(spec)
        return FlaxModel(
            module=module, variables=jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        )

    @final
    def weights(self, module: FlaxModel) -> dict[str, np.ndarray]:
        return from_flax(jax.tree.map(np.asarray, module.variables))

    @final
    def restore(self, module: FlaxModel, weights: Weights) -> None:
        refuse_misfit(self.weights(module), weights)
        module.variables = jax.tree.map(jnp.asarray, to_flax(weights))

    @final
    def size(self, spec: ModelSpec) -> Size:
        _, shapes = self._shapes(spec)
        zeros: FlaxVariables = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
        return Size(
            parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"])),
            state_dict_bytes=sum(array.nbytes for array in from_flax(zeros).values()),
        )

    def _shapes(self, spec: ModelSpec) -> tuple[nn.Module, Any]:
        """Return the module, and the shape and dtype of each of its variables."""
        assert spec.task is not None
        module = self.module(spec)
        channels, *sides = spec.task.input_shape
        row = jax.ShapeDtypeStruct((1, *sides, channels), jnp.float32)
        return module, jax.eval_shape(module.init, jax.random.key(0), row)

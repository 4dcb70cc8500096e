"""What the Flax builders of all families share."""

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
    """A Flax module, which has no state, and its variables.

    `variables` has the collections `params` and, with batch norms, `batch_stats`, each layer ->
    leaf -> array. For a function of the variables call `model.module.apply`; put what training
    came to back into `model.variables`.
    """

    module: nn.Module
    variables: dict[str, Any]

    def __call__(self, x: jax.Array) -> jax.Array:
        """The outputs in evaluation mode."""
        outputs: jax.Array = self.module.apply(self.variables, x)
        return outputs


class FlaxBuilder(Builder):
    """A builder of Flax (linen) modules: images channels last, layers named as torch's.

    An image model takes [N, H, W, C] float32 where the signature says [N, C, H, W], and gives
    [N, outputs] float32, logits without a softmax. All take `train`:

        outputs, moved = model.module.apply(
            {"params": params, "batch_stats": batch_stats}, x, train=True, mutable=["batch_stats"]
        )

    takes the statistics of the batch in batch norms, and gives the running ones, moved, as
    `moved["batch_stats"]`; a model without batch norms has no such collection, and gives none.
    No family here has dropout. Without `train` none of this happens. `build` fills the variables
    with zeros: restore weights before use.
    """

    @abstractmethod
    def module(self, spec: ModelSpec) -> nn.Module:
        """The module, each layer at its top level, named after the whole path of torch's."""

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
        """The module, and the shape and dtype of each of its variables."""
        assert spec.task is not None
        module = self.module(spec)
        channels, *sides = spec.task.input_shape
        row = jax.ShapeDtypeStruct((1, *sides, channels), jnp.float32)
        return module, jax.eval_shape(module.init, jax.random.key(0), row)

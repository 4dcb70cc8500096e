"""What the MXNet builders of all families share."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import final

import mxnet as mx
import numpy as np
from mxnet import gluon

from models.base import Builder, Size, Weights
from models.weights import COUNT, refuse_misfit
from toolkit.core.specs import ModelSpec

CANONICAL = {
    "weight": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "running_mean": "running_mean",
    "running_var": "running_var",
}
"""What torch calls a parameter of a Gluon layer. The layouts are the same."""


class MXNetBuilder(Builder):
    """A builder of Gluon blocks: their attributes are called as those of torch's modules.

    A block takes what the signature says, [N, C, H, W] or [N, features] float32.
    """

    @abstractmethod
    def block(self, spec: ModelSpec) -> gluon.HybridBlock:
        """The block, all shapes given, not initialised."""

    @final
    def build(self, spec: ModelSpec) -> gluon.HybridBlock:
        block = self.block(spec)
        block.initialize(ctx=mx.cpu())
        return block

    @final
    def weights(self, module: gluon.HybridBlock) -> dict[str, np.ndarray]:
        """Counts of batches, which MXNet has not, are 0: see models/weights.py."""
        found: dict[str, np.ndarray] = {}
        for name, parameter in parameters(module).items():
            found[name] = parameter.data().asnumpy()
            if name.endswith(".running_var"):
                found[f"{name.rpartition('.')[0]}.{COUNT}"] = np.zeros((), np.int64)
        return found

    @final
    def restore(self, module: gluon.HybridBlock, weights: Weights) -> None:
        refuse_misfit(self.weights(module), weights)
        for name, parameter in parameters(module).items():
            parameter.set_data(mx.nd.array(weights[name], dtype=np.float32))

    @final
    def size(self, spec: ModelSpec) -> Size:
        module = self.build(spec)
        trained = [p for p in parameters(module).values() if p.grad_req != "null"]
        return Size(
            parameters=sum(math.prod(parameter.shape) for parameter in trained),
            state_dict_bytes=sum(array.nbytes for array in self.weights(module).values()),
        )


def parameters(module: gluon.HybridBlock) -> dict[str, gluon.Parameter]:
    """All parameters and running statistics, under the names of the checkpoint."""
    found = {}
    for name, parameter in module._collect_params_with_prefix().items():
        layer, _, kind = name.rpartition(".")
        found[f"{layer}.{CANONICAL[kind]}"] = parameter
    return found

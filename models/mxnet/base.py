"""Base class of the MXNet builders."""

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
"""Torch's name of each kind of parameter of a Gluon layer. The layouts are the same."""


class MXNetBuilder(Builder):
    """Builder of Gluon blocks, whose attributes are named as in torch.

    A block takes the input of the signature, [N, C, H, W] or [N, features] float32.
    """

    @abstractmethod
    def block(self, spec: ModelSpec) -> gluon.HybridBlock:
        """Return the uninitialised block, with all shapes set."""

    @final
    def build(self, spec: ModelSpec) -> gluon.HybridBlock:
        block = self.block(spec)
        block.initialize(ctx=mx.cpu())
        return block

    @final
    def weights(self, module: gluon.HybridBlock) -> dict[str, np.ndarray]:
        """Return all weights; num_batches_tracked, which MXNet lacks, is 0 (models/weights.py)."""
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
    """Return all parameters and running statistics, under the names of the checkpoint."""
    found = {}
    for name, parameter in module._collect_params_with_prefix().items():
        layer, _, kind = name.rpartition(".")
        found[f"{layer}.{CANONICAL[kind]}"] = parameter
    return found

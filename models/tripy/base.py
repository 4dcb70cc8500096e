"""Base class of the Tripy builders."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import final

import numpy as np
import nvtripy as tp

from models.base import Builder, Size, Weights
from models.weights import COUNT, refuse_misfit
from toolkit.core.specs import ModelSpec

STATISTICS = ("running_mean", "running_var")


class TripyBuilder(Builder):
    """Builder of Tripy modules in evaluation mode, whose attributes are named as in torch.

    A module takes the input of the signature, [N, C, H, W] or [N, features] float32. Its weights
    are in host memory, from where the compiler reads them.
    """

    @abstractmethod
    def module(self, spec: ModelSpec) -> tp.Module:
        """Return the module, without weights."""

    @final
    def build(self, spec: ModelSpec) -> tp.Module:
        module = self.module(spec)
        empty = {n: np.zeros(p.shape, np.float32) for n, p in module.state_dict().items()}
        _load(module, empty)
        return module

    @final
    def weights(self, module: tp.Module) -> dict[str, np.ndarray]:
        """Return all weights; num_batches_tracked, which Tripy lacks, is 0 (models/weights.py)."""
        found: dict[str, np.ndarray] = {}
        for name, array in held(module).items():
            found[name] = array
            if name.endswith(".running_var"):
                found[f"{name.rpartition('.')[0]}.{COUNT}"] = np.zeros((), np.int64)
        return found

    @final
    def restore(self, module: tp.Module, weights: Weights) -> None:
        refuse_misfit(self.weights(module), weights)
        _load(module, {n: a for n, a in weights.items() if not n.endswith(f".{COUNT}")})

    @final
    def size(self, spec: ModelSpec) -> Size:
        module = self.module(spec)
        shapes = {name: tuple(p.shape) for name, p in module.state_dict().items()}
        norms = sum(name.endswith(".running_var") for name in shapes)
        numbers = {name: math.prod(shape) for name, shape in shapes.items()}
        return Size(
            parameters=sum(n for name, n in numbers.items() if not name.endswith(STATISTICS)),
            state_dict_bytes=sum(numbers.values()) * np.dtype(np.float32).itemsize
            + norms * np.dtype(np.int64).itemsize,
        )


def held(module: tp.Module) -> dict[str, np.ndarray]:
    """Return copies of the module's own tensors, under torch's names."""
    state = module.state_dict()
    return {name: np.array(np.from_dlpack(tensor), order="C") for name, tensor in state.items()}


def _load(module: tp.Module, arrays: Weights) -> None:
    """Load copies of the arrays, because a Tripy tensor shares the memory of its array."""
    module.load_state_dict(
        {name: tp.Tensor(np.array(array, order="C")) for name, array in arrays.items()}
    )

"""Base class of the torch builders, and loading of a torch module with its weights."""

from __future__ import annotations

from abc import abstractmethod
from typing import final

import numpy as np
import torch

from models import builder
from models.base import Builder, Size, Weights
from models.weights import refuse_misfit
from toolkit.core.specs import ModelSpec


class TorchBuilder(Builder):
    """Builder of torch modules, whose forward takes the inputs of the signature in order."""

    @abstractmethod
    def build(self, spec: ModelSpec) -> torch.nn.Module: ...

    @final
    def weights(self, module: torch.nn.Module) -> dict[str, np.ndarray]:
        state = module.state_dict()
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in state.items()}

    @final
    def restore(self, module: torch.nn.Module, weights: Weights) -> None:
        own = module.state_dict()
        refuse_misfit({name: tensor.cpu().numpy() for name, tensor in own.items()}, weights)
        module.load_state_dict(
            {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
        )

    @final
    def size(self, spec: ModelSpec) -> Size:
        with torch.device("meta"):
            module = self.build(spec)
        tensors = module.state_dict().values()
        return Size(
            parameters=sum(p.numel() for p in module.parameters()),
            state_dict_bytes=sum(t.numel() * t.element_size() for t in tensors),
        )


def restored(spec: ModelSpec, weights: Weights) -> torch.nn.Module:
    """Return the module of `spec` with these weights, in evaluation mode.

    Raises as `models.builder` and `restore`.
    """
    maker = builder(spec, "torch")
    module: torch.nn.Module = maker.build(spec)
    maker.restore(module, weights)
    return module.eval()

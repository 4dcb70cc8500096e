"""Conversion of a torch module to float64, as a reference for its accuracy in float32."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from toolkit.core.errors import UsageError
from toolkit.core.session import SessionOptions

DTYPE = "dtype"
OPTIONS = (DTYPE,)


def in_asked_dtype(module: nn.Module, runtime: str, options: SessionOptions) -> nn.Module:
    """Return the module unchanged, or wrapped in Doubled if the options ask for float64.

    Raise UnknownNameError for an option other than `dtype`, and UsageError for any other dtype than
    float32 and float64.
    """
    options.require_known(runtime, OPTIONS)
    dtype = options.tuning.get(DTYPE, "float32")
    if dtype not in ("float32", "float64"):
        raise UsageError(
            f"Got {runtime}.{DTYPE}={dtype}, expected float32 or float64.",
            hint="Leave it out for the model's own.",
        )
    return Doubled(module) if dtype == "float64" else module


@final
class Doubled(nn.Module):
    """Module that takes float32 inputs, computes in float64 and returns float64 outputs.

    In parts that are an fx graph, float32 arguments of operators become float64 too.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.double()
        for part in self.module.modules():
            if isinstance(part, fx.GraphModule):
                _widen(part)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.module(*(_double(tensor) for tensor in inputs))


def _double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _widen(module: fx.GraphModule) -> None:
    def wider(value: Any) -> Any:
        return torch.float64 if value is torch.float32 else value

    for node in module.graph.nodes:
        node.args = pytree.tree_map(wider, node.args)
        node.kwargs = pytree.tree_map(wider, node.kwargs)
    for name, value in vars(module).items():  # neither parameters nor buffers
        if isinstance(value, torch.Tensor):
            setattr(module, name, _double(value))
    module.recompile()

"""One process among several that train one model, each on its part of every batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

import torch
import torch.distributed as dist
from torch import nn


@final
class Team:
    """This process, `rank` of `size`, in the process group that torchrun made.

    A batch's gradient is that of the mean loss over all its rows, as in one process, up to
    rounding. Batch norms take the statistics of a process's own rows; what they keep for evaluation
    is the mean over all processes.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def part(self, tensor: torch.Tensor) -> torch.Tensor:
        """This process's rows of a batch."""
        return tensor[self.rank :: self.size]

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Adds up those of all processes; one without any has zeros."""
        for parameter in parameters:
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)

    def added(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        total = value.clone()
        dist.all_reduce(total)
        return total

    def agree(self, module: nn.Module) -> None:
        """Makes the floating-point buffers of all the same: their mean."""
        for buffer in module.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= self.size

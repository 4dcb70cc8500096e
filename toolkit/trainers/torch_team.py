"""Collective operations of processes that share each batch of a training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

import torch
import torch.distributed as dist
from torch import nn


@final
class Team:
    """Process number `rank` of the `size` processes in the group of torchrun.

    The gradient of a batch is that of the mean loss over all its samples, as in one process up to
    rounding. Batch norms are different: they use the statistics of the samples of their process.
    `agree` averages their running statistics over all processes.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def part(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the samples of a batch that this process computes."""
        return tensor[self.rank :: self.size]

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients over all processes, in place. Missing ones count as zeros."""
        for parameter in parameters:
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)

    def added(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of `value` over all processes."""
        total = value.clone()
        dist.all_reduce(total)
        return total

    def agree(self, module: nn.Module) -> None:
        """Replace each floating-point buffer by its mean over all processes."""
        for buffer in module.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= self.size

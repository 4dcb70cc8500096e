"""Batch norms whose running variance is that of torch."""

from __future__ import annotations

from typing import Any, final

from mxnet import gluon
from mxnet.gluon import nn

KEPT = 0.9  # torch's momentum of 0.1 is what is taken of the batch


@final
class BatchNorm(nn.BatchNorm):
    """eps 1e-5, momentum 0.1 as torch counts it. `positions` is height times width of a channel.

    MXNet takes the variance of a batch with 1/n into the running one, torch with 1/(n - 1):
    `correct_variances` makes up for it after each step.
    """

    def __init__(self, channels: int, positions: int) -> None:
        super().__init__(momentum=KEPT, epsilon=1e-5, in_channels=channels)
        self.positions = positions


def variances(module: gluon.HybridBlock) -> list[Any]:
    """Copies of the running variances, as `correct_variances` takes them."""
    return [norm.running_var.data().copy() for norm in _norms(module)]


def correct_variances(module: gluon.HybridBlock, before: list[Any], rows: int) -> None:
    """After a backward pass, which moves them, over `rows` with the variances `before`:
    new += (new - kept old) / (n - 1)."""
    for norm, old in zip(_norms(module), before, strict=True):
        new = norm.running_var.data()
        new += (new - KEPT * old) / (rows * norm.positions - 1)


def _norms(module: gluon.HybridBlock) -> list[BatchNorm]:
    found = [module] if isinstance(module, BatchNorm) else []
    for child in module._children.values():
        found += _norms(child)
    return found

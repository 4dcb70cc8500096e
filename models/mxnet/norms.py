"""Batch norm with torch's running variance."""

from __future__ import annotations

from typing import Any, final

from mxnet import gluon
from mxnet.gluon import nn

KEPT = 0.9  # share of the running value that is kept; torch's momentum is the other 0.1


@final
class BatchNorm(nn.BatchNorm):
    """Batch norm with eps 1e-5 and, in torch's terms, momentum 0.1.

    `positions` is the height times the width of a channel. The running variance of MXNet averages
    batch variances with the divisor n, that of torch with n - 1: call `correct_variances` after
    each step to correct it.
    """

    def __init__(self, channels: int, positions: int) -> None:
        super().__init__(momentum=KEPT, epsilon=1e-5, in_channels=channels)
        self.positions = positions


def variances(module: gluon.HybridBlock) -> list[Any]:
    """Return copies of the running variances, in the order that `correct_variances` expects."""
    return [norm.running_var.data().copy() for norm in _norms(module)]


def correct_variances(module: gluon.HybridBlock, before: list[Any], rows: int) -> None:
    """Correct the running variances after a backward pass over a batch of `rows` samples.

    The backward pass updates them from the values `before`. The correction is
    new += (new - KEPT * old) / (n - 1), where n is `rows` times the positions of the norm.
    """
    for norm, old in zip(_norms(module), before, strict=True):
        new = norm.running_var.data()
        new += (new - KEPT * old) / (rows * norm.positions - 1)


def _norms(module: gluon.HybridBlock) -> list[BatchNorm]:
    found = [module] if isinstance(module, BatchNorm) else []
    for child in module._children.values():
        found += _norms(child)
    return found

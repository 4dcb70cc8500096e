"""Layers of the Tripy models, with the semantics of torch.

Tripy's own defaults differ: a pooling has stride 1, and a flatten includes the batch axis.
"""

from __future__ import annotations

import nvtripy as tp


def conv(
    taken: int, given: int, side: int, *, stride: int = 1, pad: int = 0, bias: bool = True
) -> tp.Conv:
    """Return a `side` x `side` convolution that pads its input by `pad` zeros on each side."""
    return tp.Conv(
        taken,
        given,
        (side, side),
        stride=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        bias=bias,
    )


def max_pool(x: tp.Tensor) -> tp.Tensor:
    """Apply a 2x2 max-pooling; a last odd row or column is left out."""
    return tp.maxpool(x, (2, 2), stride=(2, 2))


def mean_pool(x: tp.Tensor) -> tp.Tensor:
    """Apply a 2x2 average pooling."""
    return tp.avgpool(x, (2, 2), stride=(2, 2))


def flatten(x: tp.Tensor, features: int) -> tp.Tensor:
    """Reshape [N, C, H, W] to [N, features].

    A known number of features spares the graph its computation from the shape.
    """
    return tp.reshape(x, (x.shape[0], features))

"""The layers that the Tripy twins are made of, each as torch defines it.

Tripy's own defaults differ: a pooling has a stride of 1, a flattening takes the batch as well.
"""

from __future__ import annotations

import nvtripy as tp


def conv(
    taken: int, given: int, side: int, *, stride: int = 1, pad: int = 0, bias: bool = True
) -> tp.Conv:
    """A `side` x `side` convolution over `pad` rows and columns of zeros around its input."""
    return tp.Conv(
        taken,
        given,
        (side, side),
        stride=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        bias=bias,
    )


def max_pool(x: tp.Tensor) -> tp.Tensor:
    """The largest of each 2x2; a last odd row or column is left out."""
    return tp.maxpool(x, (2, 2), stride=(2, 2))


def mean_pool(x: tp.Tensor) -> tp.Tensor:
    """The mean of each 2x2."""
    return tp.avgpool(x, (2, 2), stride=(2, 2))


def flatten(x: tp.Tensor, features: int) -> tp.Tensor:
    """[N, C, H, W] -> [N, features]. With the number known, nothing is computed of the extents."""
    return tp.reshape(x, (x.shape[0], features))

"""ResNets with 6n+2 layers in Keras."""

from __future__ import annotations

from typing import final

import keras
from keras import ops

from models.he_resnet import BLOCKS, WIDTHS
from models.keras.base import KerasBuilder
from models.keras.layers import Tensor, batch_norm, conv, dense, rows
from toolkit.core.specs import ModelSpec


@final
class HeResNetBuilder(KerasBuilder):
    """[N, side, side, 3] float32 -> [N, classes] float32."""

    def build(self, spec: ModelSpec) -> keras.Model:
        assert spec.task is not None
        images = rows(spec)
        x = ops.relu(batch_norm(conv(images, "conv1", WIDTHS[0], 3, pad=1, bias=False), "bn1"))
        for stage, width in enumerate(WIDTHS):
            for block in range(BLOCKS[spec.family]):
                x = _block(x, f"stages.{stage}.{block}", width)
        x = ops.mean(x, axis=(1, 2))
        return keras.Model(images, dense(x, "fc", spec.task.outputs), name=spec.name)


def _block(x: Tensor, name: str, given: int) -> Tensor:
    """Apply a block: [N, H, W, C] -> [N, H, W, given], with halved H and W if `given` is not C."""
    more = given - x.shape[-1]
    stride = 2 if more else 1
    h = conv(x, f"{name}.conv1", given, 3, stride=stride, pad=1, bias=False)
    h = ops.relu(batch_norm(h, f"{name}.bn1"))
    h = batch_norm(conv(h, f"{name}.conv2", given, 3, pad=1, bias=False), f"{name}.bn2")
    if more:
        x = ops.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, more)))
    return ops.relu(h + x)

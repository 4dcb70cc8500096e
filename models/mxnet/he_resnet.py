"""ResNets with 6n+2 layers in MXNet."""

from __future__ import annotations

from typing import Any, final

from mxnet import gluon
from mxnet.gluon import nn

from models.he_resnet import BLOCKS, WIDTHS
from models.mxnet.base import MXNetBuilder
from models.mxnet.norms import BatchNorm
from toolkit.core.specs import ModelSpec


@final
class Block(gluon.HybridBlock):
    """[N, taken, side, side] -> [N, given, side, side].

    If `given` is twice `taken`, the input has twice the side.
    """

    def __init__(self, taken: int, given: int, side: int) -> None:
        super().__init__()
        self.widens = given != taken
        stride = 2 if self.widens else 1
        self.conv1 = _conv(taken, given, stride)
        self.bn1 = BatchNorm(given, side * side)
        self.conv2 = _conv(given, given)
        self.bn2 = BatchNorm(given, side * side)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        h = F.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        if self.widens:
            x = F.slice(x, begin=(None,) * 4, end=(None,) * 4, step=(1, 1, 2, 2))
            x = F.concat(x, F.zeros_like(x), dim=1)
        return F.relu(h + x)


@final
class HeResNetBlock(gluon.HybridBlock):
    """[N, 3, side, side] float32 -> [N, classes] float32, with n blocks per stage."""

    def __init__(self, n: int, side: int, classes: int) -> None:
        super().__init__()
        taken = WIDTHS[0]
        self.conv1 = _conv(3, taken)
        self.bn1 = BatchNorm(taken, side * side)
        self.stages = nn.HybridSequential()
        for width in WIDTHS:
            side = side if width == taken else side // 2
            stage = nn.HybridSequential()
            stage.add(Block(taken, width, side), *(Block(width, width, side) for _ in range(n - 1)))
            self.stages.add(stage)
            taken = width
        self.fc = nn.Dense(classes, in_units=taken)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc(F.mean(self.stages(x), axis=(2, 3)))


def _conv(taken: int, given: int, stride: int = 1) -> nn.Conv2D:
    return nn.Conv2D(given, 3, strides=stride, padding=1, use_bias=False, in_channels=taken)


@final
class HeResNetBuilder(MXNetBuilder):
    def block(self, spec: ModelSpec) -> gluon.HybridBlock:
        assert spec.task is not None
        side = spec.task.input_shape[-1]
        return HeResNetBlock(BLOCKS[spec.family], side, spec.task.outputs)

"""ResNets with 6n+2 layers in Tripy."""

from __future__ import annotations

from typing import final

import nvtripy as tp

from models.he_resnet import BLOCKS, WIDTHS
from models.tripy.base import TripyBuilder
from models.tripy.layers import conv
from toolkit.core.specs import ModelSpec


@final
class Block(tp.Module):
    """[N, taken, H, W] -> [N, given, H, W], with halved H and W if `given` differs from `taken`."""

    def __init__(self, taken: int, given: int) -> None:
        super().__init__()
        self.more = given - taken
        self.stride = 2 if self.more else 1
        self.conv1 = conv(taken, given, 3, stride=self.stride, pad=1, bias=False)
        self.bn1 = tp.BatchNorm(given)
        self.conv2 = conv(given, given, 3, pad=1, bias=False)
        self.bn2 = tp.BatchNorm(given)

    def forward(self, x: tp.Tensor) -> tp.Tensor:
        h = tp.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        if self.more:
            # x[:, :, ::2, ::2] gives the same, but is lowered to forty shape operations.
            x = tp.maxpool(x, (1, 1), stride=(self.stride, self.stride))
            x = tp.pad(x, ((0, 0), (0, self.more), (0, 0), (0, 0)))
        return tp.relu(h + x)


@final
class HeResNetModule(tp.Module):
    """[N, 3, side, side] float32 -> [N, classes] float32, with n blocks per stage."""

    def __init__(self, n: int, classes: int) -> None:
        super().__init__()
        taken = WIDTHS[0]
        self.conv1 = conv(3, taken, 3, pad=1, bias=False)
        self.bn1 = tp.BatchNorm(taken)
        self.stages = []
        for width in WIDTHS:
            blocks = [Block(taken, width), *(Block(width, width) for _ in range(n - 1))]
            self.stages.append(tp.Sequential(*blocks))
            taken = width
        self.fc = tp.Linear(taken, classes)

    def forward(self, x: tp.Tensor) -> tp.Tensor:
        x = tp.relu(self.bn1(self.conv1(x)))
        for stage in self.stages:
            x = stage(x)
        return self.fc(tp.mean(x, dim=(2, 3)))


@final
class HeResNetBuilder(TripyBuilder):
    def module(self, spec: ModelSpec) -> tp.Module:
        assert spec.task is not None
        return HeResNetModule(BLOCKS[spec.family], spec.task.outputs)

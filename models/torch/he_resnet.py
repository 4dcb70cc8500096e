"""ResNets with 6n+2 layers in torch."""

from __future__ import annotations

from typing import final

import torch
from torch import nn
from torch.nn import functional as F

from models.he_resnet import BLOCKS, WIDTHS
from models.torch.base import TorchBuilder
from toolkit.core.specs import ModelSpec


@final
class Block(nn.Module):
    """[N, taken, H, W] -> [N, given, H, W], with halved H and W if `given` differs from `taken`."""

    def __init__(self, taken: int, given: int) -> None:
        super().__init__()
        self.more = given - taken
        self.stride = 2 if self.more else 1
        self.conv1 = nn.Conv2d(taken, given, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(given)
        self.conv2 = nn.Conv2d(given, given, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(given)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        if self.more:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return F.relu(h + x)


@final
class HeResNetModule(nn.Module):
    """[N, 3, side, side] float32 -> [N, classes] float32, with n blocks per stage."""

    def __init__(self, n: int, classes: int) -> None:
        super().__init__()
        taken = WIDTHS[0]
        self.conv1 = nn.Conv2d(3, taken, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(taken)
        self.stages = nn.ModuleList()
        for width in WIDTHS:
            blocks = [Block(taken, width), *(Block(width, width) for _ in range(n - 1))]
            self.stages.append(nn.Sequential(*blocks))
            taken = width
        self.fc = nn.Linear(taken, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in self.stages:
            x = stage(x)
        return self.fc(x.mean(dim=(2, 3)))


@final
class HeResNetBuilder(TorchBuilder):
    def build(self, spec: ModelSpec) -> nn.Module:
        assert spec.task is not None
        return HeResNetModule(BLOCKS[spec.family], spec.task.outputs)

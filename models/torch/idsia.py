"""IDSIA net in torch."""

from __future__ import annotations

from typing import final

import torch
from torch import nn
from torch.nn import functional as F

from models.torch.base import TorchBuilder
from toolkit.core.specs import ModelSpec


@final
class IDSIAModule(nn.Module):
    """[N, 3, 48, 48] float32 -> [N, classes] float32."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 100, 3)
        self.conv2 = nn.Conv2d(100, 150, 4)
        self.conv3 = nn.Conv2d(150, 250, 3)
        self.fc1 = nn.Linear(4000, 230)
        self.fc2 = nn.Linear(230, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.max_pool2d(F.relu(self.conv3(x)), 2)
        x = torch.flatten(x, 1)
        return self.fc2(F.relu(self.fc1(x)))


@final
class IDSIABuilder(TorchBuilder):
    def build(self, spec: ModelSpec) -> nn.Module:
        assert spec.task is not None
        return IDSIAModule(spec.task.outputs)

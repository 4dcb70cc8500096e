"""LeNet in torch."""

from __future__ import annotations

from typing import final

import torch
from torch import nn
from torch.nn import functional as F

from models.torch.base import TorchBuilder
from toolkit.core.specs import ModelSpec


@final
class LeNetModule(nn.Module):
    """[N, 3, 32, 32] float32 -> [N, classes] float32."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


@final
class LeNetBuilder(TorchBuilder):
    def build(self, spec: ModelSpec) -> nn.Module:
        assert spec.task is not None
        return LeNetModule(spec.task.outputs)

"""AlexNet in torch."""

from __future__ import annotations

from typing import final

import torch
from torch import nn
from torch.nn import functional as F

from models.torch.base import TorchBuilder
from toolkit.core.specs import ModelSpec


@final
class AlexNetModule(nn.Module):
    """[N, 3, 32, 32] float32 -> [N, classes] float32."""

    def __init__(self, classes: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(64, 192, 3, padding=1)
        self.conv3 = nn.Conv2d(192, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 256, 3, padding=1)
        self.conv5 = nn.Conv2d(256, 256, 3, padding=1)
        self.fc1 = nn.Linear(1024, 4096)
        self.fc2 = nn.Linear(4096, 4096)
        self.fc3 = nn.Linear(4096, classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x))
        x = F.max_pool2d(F.relu(self.conv5(x)), 2)
        x = torch.flatten(x, 1)
        x = self.dropout(F.relu(self.fc1(x)))
        x = self.dropout(F.relu(self.fc2(x)))
        return self.fc3(x)


@final
class AlexNetBuilder(TorchBuilder):
    def build(self, spec: ModelSpec) -> nn.Module:
        assert spec.task is not None
        return AlexNetModule(spec.task.outputs, spec.hyperparameters["dropout"])

"""VGG16 in torch."""

from __future__ import annotations

from typing import final

import torch
from torch import nn
from torch.nn import functional as F

from models.torch.base import TorchBuilder
from models.vgg16 import HIDDEN, STAGES
from toolkit.core.specs import ModelSpec


@final
class Stage(nn.Module):
    """[N, taken, H, W] -> [N, widths[-1], H / 2, W / 2]."""

    def __init__(self, taken: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        before = (taken, *widths[:-1])
        pairs = zip(before, widths, strict=True)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        return F.max_pool2d(x, 2)


@final
class VGG16Module(nn.Module):
    """[N, 3, 32, 32] float32 -> [N, classes] float32."""

    def __init__(self, classes: int, dropout: float) -> None:
        super().__init__()
        taken = (3, *(widths[-1] for widths in STAGES))
        self.stages = nn.Sequential(*map(Stage, taken, STAGES))
        self.fc1 = nn.Linear(taken[-1], HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, HIDDEN)
        self.fc3 = nn.Linear(HIDDEN, classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.flatten(self.stages(x), 1)
        x = self.dropout(F.relu(self.fc1(x)))
        x = self.dropout(F.relu(self.fc2(x)))
        return self.fc3(x)


@final
class VGG16Builder(TorchBuilder):
    def build(self, spec: ModelSpec) -> nn.Module:
        assert spec.task is not None
        return VGG16Module(spec.task.outputs, spec.hyperparameters["dropout"])

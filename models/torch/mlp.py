"""MLP in torch."""

from __future__ import annotations

from typing import final

import torch
from torch import nn
from torch.nn import functional as F

from models.torch.base import TorchBuilder
from toolkit.core.specs import ModelSpec


@final
class MLPModule(nn.Module):
    """[N, features] float32 -> [N, outputs] float32."""

    def __init__(self, features: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.relu(self.fc1(x)))


@final
class MLPBuilder(TorchBuilder):
    def build(self, spec: ModelSpec) -> nn.Module:
        assert spec.task is not None
        (features,) = spec.task.input_shape
        return MLPModule(features, spec.hyperparameters["hidden"], spec.task.outputs)

"""IDSIA net in Tripy."""

from __future__ import annotations

from typing import final

import nvtripy as tp

from models.tripy.base import TripyBuilder
from models.tripy.layers import conv, flatten, max_pool
from toolkit.core.specs import ModelSpec


@final
class IDSIAModule(tp.Module):
    """[N, 3, 48, 48] float32 -> [N, classes] float32."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, 100, 3)
        self.conv2 = conv(100, 150, 4)
        self.conv3 = conv(150, 250, 3)
        self.fc1 = tp.Linear(4000, 230)
        self.fc2 = tp.Linear(230, classes)

    def forward(self, x: tp.Tensor) -> tp.Tensor:
        x = max_pool(tp.relu(self.conv1(x)))
        x = max_pool(tp.relu(self.conv2(x)))
        x = max_pool(tp.relu(self.conv3(x)))
        x = flatten(x, 4000)
        return self.fc2(tp.relu(self.fc1(x)))


@final
class IDSIABuilder(TripyBuilder):
    def module(self, spec: ModelSpec) -> tp.Module:
        assert spec.task is not None
        return IDSIAModule(spec.task.outputs)

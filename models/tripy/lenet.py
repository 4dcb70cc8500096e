"""LeNet in Tripy."""

from __future__ import annotations

from typing import final

import nvtripy as tp

from models.tripy.base import TripyBuilder
from models.tripy.layers import conv, flatten, max_pool
from toolkit.core.specs import ModelSpec


@final
class LeNetModule(tp.Module):
    """[N, 3, 32, 32] float32 -> [N, classes] float32."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, 6, 5)
        self.conv2 = conv(6, 16, 5)
        self.fc1 = tp.Linear(400, 120)
        self.fc2 = tp.Linear(120, 84)
        self.fc3 = tp.Linear(84, classes)

    def forward(self, x: tp.Tensor) -> tp.Tensor:
        x = max_pool(tp.relu(self.conv1(x)))
        x = max_pool(tp.relu(self.conv2(x)))
        x = flatten(x, 400)
        x = tp.relu(self.fc1(x))
        x = tp.relu(self.fc2(x))
        return self.fc3(x)


@final
class LeNetBuilder(TripyBuilder):
    def module(self, spec: ModelSpec) -> tp.Module:
        assert spec.task is not None
        return LeNetModule(spec.task.outputs)

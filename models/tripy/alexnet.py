"""AlexNet in Tripy."""

from __future__ import annotations

from typing import final

import nvtripy as tp

from models.tripy.base import TripyBuilder
from models.tripy.layers import conv, flatten, max_pool
from toolkit.core.specs import ModelSpec


@final
class AlexNetModule(tp.Module):
    """[N, 3, 32, 32] float32 -> [N, classes] float32, in evaluation mode, without dropout."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, 64, 3, stride=2, pad=1)
        self.conv2 = conv(64, 192, 3, pad=1)
        self.conv3 = conv(192, 384, 3, pad=1)
        self.conv4 = conv(384, 256, 3, pad=1)
        self.conv5 = conv(256, 256, 3, pad=1)
        self.fc1 = tp.Linear(1024, 4096)
        self.fc2 = tp.Linear(4096, 4096)
        self.fc3 = tp.Linear(4096, classes)

    def forward(self, x: tp.Tensor) -> tp.Tensor:
        x = max_pool(tp.relu(self.conv1(x)))
        x = max_pool(tp.relu(self.conv2(x)))
        x = tp.relu(self.conv3(x))
        x = tp.relu(self.conv4(x))
        x = max_pool(tp.relu(self.conv5(x)))
        x = flatten(x, 1024)
        x = tp.relu(self.fc1(x))
        x = tp.relu(self.fc2(x))
        return self.fc3(x)


@final
class AlexNetBuilder(TripyBuilder):
    def module(self, spec: ModelSpec) -> tp.Module:
        assert spec.task is not None
        return AlexNetModule(spec.task.outputs)

"""VGG16 in Tripy."""

from __future__ import annotations

from typing import final

import nvtripy as tp

from models.tripy.base import TripyBuilder
from models.tripy.layers import conv, flatten, max_pool
from models.vgg16 import HIDDEN, STAGES
from toolkit.core.specs import ModelSpec


@final
class Stage(tp.Module):
    """[N, taken, H, W] -> [N, widths[-1], H / 2, W / 2]."""

    def __init__(self, taken: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        before = (taken, *widths[:-1])
        self.convs = [conv(i, o, 3, pad=1) for i, o in zip(before, widths, strict=True)]
        self.norms = [tp.BatchNorm(width) for width in widths]

    def forward(self, x: tp.Tensor) -> tp.Tensor:
        for convolution, norm in zip(self.convs, self.norms, strict=True):
            x = tp.relu(norm(convolution(x)))
        return max_pool(x)


@final
class VGG16Module(tp.Module):
    """[N, 3, 32, 32] float32 -> [N, classes] float32, in evaluation mode, without dropout."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        taken = (3, *(widths[-1] for widths in STAGES))
        self.stages = tp.Sequential(*map(Stage, taken, STAGES))
        self.features = taken[-1]
        self.fc1 = tp.Linear(taken[-1], HIDDEN)
        self.fc2 = tp.Linear(HIDDEN, HIDDEN)
        self.fc3 = tp.Linear(HIDDEN, classes)

    def forward(self, x: tp.Tensor) -> tp.Tensor:
        x = flatten(self.stages(x), self.features)
        x = tp.relu(self.fc1(x))
        x = tp.relu(self.fc2(x))
        return self.fc3(x)


@final
class VGG16Builder(TripyBuilder):
    def module(self, spec: ModelSpec) -> tp.Module:
        assert spec.task is not None
        return VGG16Module(spec.task.outputs)

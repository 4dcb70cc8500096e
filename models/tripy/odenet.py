"""Trunk with residual or ODE stages in Tripy."""

from __future__ import annotations

from typing import final

import nvtripy as tp

from models.ode import Grid
from models.tripy.base import TripyBuilder
from models.tripy.layers import conv, flatten, mean_pool
from toolkit.core.specs import ModelSpec

APPLICATIONS = 2  # how often one pass applies a block's convolution and batch norm


@final
class ResidualBlock(tp.Module):
    """Residual block on [N, C, H, W]: ReLU(BN(conv)) twice, weights shared, shortcut, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels, 3, pad=1)
        self.bn = tp.BatchNorm(channels)

    def forward(self, x: tp.Tensor) -> tp.Tensor:
        h = x
        for _ in range(APPLICATIONS):
            h = tp.relu(self.bn(self.conv(h)))
        return tp.relu(h + x)


@final
class ConvDynamics(tp.Module):
    """Dynamics f(t, h): ReLU(BN(conv([h, t]))) twice, weights shared; t is a constant channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels + 1, channels, 3, pad=1)
        self.bn = tp.BatchNorm(channels)

    def forward(self, clock: tp.Tensor, state: tp.Tensor) -> tp.Tensor:
        for _ in range(APPLICATIONS):
            state = tp.relu(self.bn(self.conv(tp.concatenate([state, clock], dim=1))))
        return state


@final
class OdeLayer(tp.Module):
    """ODE layer on [N, C, H, W]: integrates h(0) to h(1) by Euler's method in equal steps."""

    def __init__(self, channels: int, grid: Grid) -> None:
        super().__init__()
        self.dynamics = ConvDynamics(channels)
        self.grid = grid

    def forward(self, state: tp.Tensor) -> tp.Tensor:
        batch, _, height, width = state.shape
        for time in self.grid.times:
            clock = tp.full((batch, 1, height, width), time)
            state = state + self.dynamics(clock, state) * self.grid.step
        return state


@final
class TrunkModule(tp.Module):
    """[N, 3, 32, 32] float32 -> [N, classes] float32, with stages on 32 and on 64 channels."""

    def __init__(self, stage1: tp.Module, stage2: tp.Module, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, 16, 3, pad=1)
        self.bn1 = tp.BatchNorm(16)
        self.conv2 = conv(16, 32, 3, pad=1)
        self.bn2 = tp.BatchNorm(32)
        self.stage1 = stage1
        self.conv3 = conv(32, 64, 3, pad=1)
        self.bn3 = tp.BatchNorm(64)
        self.stage2 = stage2
        self.fc = tp.Linear(256, classes)

    def forward(self, x: tp.Tensor) -> tp.Tensor:
        x = mean_pool(tp.relu(self.bn1(self.conv1(x))))
        x = mean_pool(tp.relu(self.bn2(self.conv2(x))))
        x = self.stage1(x)
        x = mean_pool(tp.relu(self.bn3(self.conv3(x))))
        x = self.stage2(x)
        return self.fc(flatten(mean_pool(x), 256))


@final
class TrunkBuilder(TripyBuilder):
    def module(self, spec: ModelSpec) -> tp.Module:
        assert spec.task is not None
        settings = spec.hyperparameters

        def residual(channels: int) -> tp.Module:
            return tp.Sequential(*(ResidualBlock(channels) for _ in range(settings["blocks"])))

        def ode(channels: int) -> tp.Module:
            return OdeLayer(channels, Grid.of_accuracy(settings["accuracy"]))

        first = ode if spec.family == "odenet" else residual
        second = residual if spec.family == "resnet" else ode
        return TrunkModule(first(32), second(64), spec.task.outputs)

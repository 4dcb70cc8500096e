"""Trunk with residual or ODE stages in torch."""

from __future__ import annotations

from typing import final

import torch
from torch import nn
from torch.nn import functional as F

from models.ode import Grid
from models.torch.base import TorchBuilder
from models.torch.ode import Dynamics, OdeLayer, Tensors
from toolkit.core.specs import ModelSpec

APPLICATIONS = 2  # how often one pass applies a block's convolution and batch norm


@final
class ResidualBlock(nn.Module):
    """Residual block on [N, C, H, W]: ReLU(BN(conv)) twice, weights shared, shortcut, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x
        for _ in range(APPLICATIONS):
            h = F.relu(self.bn(self.conv(h)))
        return F.relu(h + x)


@final
class ConvDynamics(Dynamics):
    """Dynamics f(t, h): ReLU(BN(conv([h, t]))) twice, weights shared; t is a constant channel.

    In training, each application normalises with its own batch statistics, and the running
    statistics are updated with their mean over all applications of a solve. In training,
    conv([h, t]) is also computed as conv_h(h) + t * conv_t(1): the map conv_t(1) is computed once
    per solve, and the kernel of conv_h has a round number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)

    def coefficients(self, state: torch.Tensor) -> Tensors:
        kernel, bias = self.conv.weight, self.conv.bias
        norm = (self.bn.weight, self.bn.bias)
        assert bias is not None
        if not self.training:
            assert self.bn.running_mean is not None
            assert self.bn.running_var is not None
            return kernel, bias, *norm, self.bn.running_mean, self.bn.running_var
        ramp = F.conv2d(state.new_ones(1, 1, *state.shape[2:]), kernel[:, -1:], padding=1)
        of_state = kernel[:, :-1].contiguous(memory_format=torch.channels_last)
        ramp = ramp.contiguous(memory_format=torch.channels_last)
        return of_state, bias, *norm, ramp

    def derivative(
        self, time: float, state: torch.Tensor, coefficients: Tensors
    ) -> tuple[torch.Tensor, Tensors]:
        if not self.training:
            return self._evaluated(time, state, coefficients), ()
        kernel, bias, scale, shift, ramp = coefficients
        mean, variance = (torch.zeros_like(shift, requires_grad=False) for _ in range(2))
        for number in range(APPLICATIONS):
            state = F.conv2d(state, kernel, bias, padding=1)
            if time:
                state = torch.add(state, ramp, alpha=time)
            # Momentum 1/k at application k makes `mean` and `variance` averages over applications.
            share = 1 / (number + 1)
            state = F.batch_norm(state, mean, variance, scale, shift, True, share, self.bn.eps)
            state = F.relu(state)
        return state, (mean, variance)

    def _evaluated(self, time: float, state: torch.Tensor, coefficients: Tensors) -> torch.Tensor:
        kernel, bias, scale, shift, mean, variance = coefficients
        for _ in range(APPLICATIONS):
            clock = torch.full_like(state[:, :1], time)
            state = F.conv2d(torch.cat([state, clock], 1), kernel, bias, padding=1)
            state = F.batch_norm(state, mean, variance, scale, shift, False, 0.0, self.bn.eps)
            state = F.relu(state)
        return state

    @torch.no_grad()
    def observe(self, statistics: Tensors) -> None:
        mean, variance = statistics
        bn = self.bn
        assert bn.running_mean is not None
        assert bn.running_var is not None
        assert bn.num_batches_tracked is not None
        assert bn.momentum is not None
        bn.running_mean.lerp_(mean, bn.momentum)
        bn.running_var.lerp_(variance, bn.momentum)
        bn.num_batches_tracked.add_(1)


@final
class TrunkModule(nn.Module):
    """[N, 3, 32, 32] float32 -> [N, classes] float32, with stages on 32 and on 64 channels."""

    def __init__(self, stage1: nn.Module, stage2: nn.Module, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(32)
        self.stage1 = stage1
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(64)
        self.stage2 = stage2
        self.fc = nn.Linear(256, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:  # faster on a CPU, forward and backward
            x = x.contiguous(memory_format=torch.channels_last)
        x = F.avg_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.avg_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = self.stage1(x)
        x = F.avg_pool2d(F.relu(self.bn3(self.conv3(x))), 2)
        x = self.stage2(x)
        return self.fc(torch.flatten(F.avg_pool2d(x, 2), 1))


@final
class TrunkBuilder(TorchBuilder):
    def build(self, spec: ModelSpec) -> nn.Module:
        assert spec.task is not None
        settings = spec.hyperparameters

        def residual(channels: int) -> nn.Module:
            return nn.Sequential(*(ResidualBlock(channels) for _ in range(settings["blocks"])))

        def ode(channels: int) -> nn.Module:
            grid = Grid.of_accuracy(settings["accuracy"])
            return OdeLayer(ConvDynamics(channels), grid, settings["gradient"])

        first = ode if spec.family == "odenet" else residual
        second = residual if spec.family == "resnet" else ode
        return TrunkModule(first(32), second(64), spec.task.outputs)

"""MLP in Tripy."""

from __future__ import annotations

from typing import final

import nvtripy as tp

from models.tripy.base import TripyBuilder
from toolkit.core.specs import ModelSpec


@final
class MLPModule(tp.Module):
    """[N, features] float32 -> [N, outputs] float32."""

    def __init__(self, features: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = tp.Linear(features, hidden)
        self.fc2 = tp.Linear(hidden, outputs)

    def forward(self, x: tp.Tensor) -> tp.Tensor:
        return self.fc2(tp.relu(self.fc1(x)))


@final
class MLPBuilder(TripyBuilder):
    def module(self, spec: ModelSpec) -> tp.Module:
        assert spec.task is not None
        (features,) = spec.task.input_shape
        return MLPModule(features, spec.hyperparameters["hidden"], spec.task.outputs)

"""MLP in MXNet."""

from __future__ import annotations

from typing import Any, final

from mxnet import gluon
from mxnet.gluon import nn

from models.mxnet.base import MXNetBuilder
from toolkit.core.specs import ModelSpec


@final
class MLPBlock(gluon.HybridBlock):
    """[N, features] float32 -> [N, outputs] float32."""

    def __init__(self, features: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Dense(hidden, in_units=features)
        self.fc2 = nn.Dense(outputs, in_units=hidden)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.fc2(F.relu(self.fc1(x)))


@final
class MLPBuilder(MXNetBuilder):
    def block(self, spec: ModelSpec) -> gluon.HybridBlock:
        assert spec.task is not None
        (features,) = spec.task.input_shape
        return MLPBlock(features, spec.hyperparameters["hidden"], spec.task.outputs)

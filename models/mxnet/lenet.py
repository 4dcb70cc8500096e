"""LeNet in MXNet."""

from __future__ import annotations

from typing import Any, final

from mxnet import gluon
from mxnet.gluon import nn

from models.mxnet.base import MXNetBuilder
from toolkit.core.specs import ModelSpec


@final
class LeNetBlock(gluon.HybridBlock):
    """[N, 3, 32, 32] float32 -> [N, classes] float32."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2D(6, 5, in_channels=3)
        self.conv2 = nn.Conv2D(16, 5, in_channels=6)
        self.pool = nn.MaxPool2D(2)
        self.fc1 = nn.Dense(120, in_units=400)
        self.fc2 = nn.Dense(84, in_units=120)
        self.fc3 = nn.Dense(classes, in_units=84)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = F.relu(self.fc1(x))  # a Gluon dense layer flattens its input
        x = F.relu(self.fc2(x))
        return self.fc3(x)


@final
class LeNetBuilder(MXNetBuilder):
    def block(self, spec: ModelSpec) -> gluon.HybridBlock:
        assert spec.task is not None
        return LeNetBlock(spec.task.outputs)

"""IDSIA net in MXNet."""

from __future__ import annotations

from typing import Any, final

from mxnet import gluon
from mxnet.gluon import nn

from models.mxnet.base import MXNetBuilder
from toolkit.core.specs import ModelSpec


@final
class IDSIABlock(gluon.HybridBlock):
    """[N, 3, 48, 48] float32 -> [N, classes] float32."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2D(100, 3, in_channels=3)
        self.conv2 = nn.Conv2D(150, 4, in_channels=100)
        self.conv3 = nn.Conv2D(250, 3, in_channels=150)
        self.pool = nn.MaxPool2D(2)
        self.fc1 = nn.Dense(230, in_units=4000)
        self.fc2 = nn.Dense(classes, in_units=230)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = self.pool(F.relu(self.conv3(x)))
        return self.fc2(F.relu(self.fc1(x)))  # a Gluon dense layer flattens its input


@final
class IDSIABuilder(MXNetBuilder):
    def block(self, spec: ModelSpec) -> gluon.HybridBlock:
        assert spec.task is not None
        return IDSIABlock(spec.task.outputs)

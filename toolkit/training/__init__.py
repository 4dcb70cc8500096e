"""Trainers by framework."""

from __future__ import annotations

from toolkit.core.registry import Entry, Registry
from toolkit.training.base import Trainer

TRAINERS: Registry[Trainer] = Registry(
    "trainer",
    {
        "torch": Entry("toolkit.training.torch_loops:TorchTrainer"),
        "mxnet": Entry("toolkit.training.mxnet_loops:MXNetTrainer", command="make mxnet-env"),
    },
    group="toolkit.trainers",
)

"""Trainers by framework."""

from __future__ import annotations

from toolkit.core.registry import Entry, Registry
from toolkit.training.base import Trainer

TRAINERS: Registry[Trainer] = Registry(
    "trainer",
    {
        "torch": Entry("toolkit.training.torch_loops:TorchTrainer"),
        "tensorflow": Entry("toolkit.training.tensorflow_loops:TensorFlowTrainer", "tensorflow"),
        "jax": Entry("toolkit.training.jax_loops:JaxTrainer", "jax"),
    },
    group="toolkit.trainers",
)

"""Registry of the trainers, by framework."""

from __future__ import annotations

import os

from toolkit.core.registry import Entry, Registry
from toolkit.trainers.base import Trainer

# TensorFlow reads this on import. Its warnings about internals do not concern users.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

TRAINERS: Registry[Trainer] = Registry(
    "trainer",
    {
        "torch": Entry("toolkit.trainers.torch_loops:TorchTrainer"),
        "tensorflow": Entry("toolkit.trainers.tensorflow_loops:TensorFlowTrainer", "tensorflow"),
        "jax": Entry("toolkit.trainers.jax_loops:JaxTrainer", "jax"),
        "mxnet": Entry("toolkit.trainers.mxnet_loops:MXNetTrainer", command="make mxnet-env"),
    },
    group="toolkit.trainers",
)

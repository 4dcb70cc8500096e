"""LeNet for 3x32x32 images (LeCun et al., 1998, as used in PyTorch's tutorials)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

from models.base import Builder, Family
from toolkit.core.registry import Entry, Registry
from toolkit.core.specs import Task, TaskKind


@final
class LeNet(Family):
    """Two 5x5 convolutions with max-pooling, dense layers 400-120-84-classes, ReLU between.

    It has 62,006 parameters for ten classes. The input is `input` [batch, 3, 32, 32] float32, the
    output `logits` [batch, classes] float32.
    """

    name: ClassVar[str] = "lenet"
    builders: ClassVar[Registry[Builder]] = Registry(
        "framework",
        {
            "torch": Entry("models.torch.lenet:LeNetBuilder"),
            "tensorflow": Entry("models.keras.lenet:LeNetBuilder", "tensorflow"),
            "jax": Entry("models.flax.lenet:LeNetBuilder", "jax"),
            "mxnet": Entry("models.mxnet.lenet:LeNetBuilder", command="make mxnet-env"),
            "tripy": Entry("models.tripy.lenet:LeNetBuilder", "tripy"),
        },
    )
    home: ClassVar[Task] = Task(kind=TaskKind.CLASSIFICATION, input_shape=(3, 32, 32), outputs=10)
    recipe: ClassVar[Mapping[str, Any]] = {
        "batch": 16,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "cosine",
    }

"""AlexNet for 3x32x32 images (Krizhevsky et al., 2012, in the variant common for CIFAR)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

from models.base import Builder, Family
from toolkit.core.options import Option
from toolkit.core.registry import Entry, Registry
from toolkit.core.specs import Task, TaskKind


@final
class AlexNet(Family):
    """Convolutions 64-192-384-256-256 and dense layers 1024-4096-4096-classes, ReLU between.

    The widths are those of Krizhevsky's "One weird trick" (2014) and of torchvision. For 32x32
    images all kernels are 3x3, the first with stride 2. A non-overlapping 2x2 max-pooling follows
    the first, second and fifth convolution; the sides are 32-16-8-4-2. There is no local response
    normalisation. Dropout follows the two hidden dense layers. The model has 23,272,266 parameters
    for ten classes. The input is `input` [batch, 3, 32, 32] float32, the output `logits`
    [batch, classes] float32.
    """

    name: ClassVar[str] = "alexnet"
    builders: ClassVar[Registry[Builder]] = Registry(
        "framework",
        {
            "torch": Entry("models.torch.alexnet:AlexNetBuilder"),
            "tensorflow": Entry("models.keras.alexnet:AlexNetBuilder", "tensorflow"),
            "tripy": Entry("models.tripy.alexnet:AlexNetBuilder", "tripy"),
        },
    )
    home: ClassVar[Task] = Task(kind=TaskKind.CLASSIFICATION, input_shape=(3, 32, 32), outputs=10)
    options: ClassVar[Mapping[str, Option]] = {
        "dropout": Option(
            default=0.5,
            help="Share of the hidden dense units left out at random in training.",
            least=0,
            most=0.9,
        )
    }
    recipe: ClassVar[Mapping[str, Any]] = {
        "batch": 250,
        "optimizer": "sgd",
        "learning_rate": 0.01,
    }

"""ResNets with 6n+2 layers for small images (He et al., 2015, Deep Residual Learning, 4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

from models.base import Builder, Family
from toolkit.core.options import Option, Value
from toolkit.core.registry import Entry, Registry
from toolkit.core.specs import Task, TaskKind

WIDTHS = (16, 32, 64)
BLOCKS = {"resnet20": 3, "resnet32": 5}
"""Number n of blocks in each of the three stages, by family."""


class HeResNet(Family):
    """3x3 convolution, three stages of n blocks with widths 16, 32, 64, global mean, dense layer.

    A block is two 3x3 convolutions without bias, each followed by a batch norm (eps 1e-5, momentum
    0.1), and a shortcut added before the last ReLU. The first block of the second and third stages
    halves the side; its shortcut takes every second row and column and pads the new channels with
    zeros (option A, which the paper uses for CIFAR-10). The input is `input` [batch, 3, side, side]
    float32, the output `logits` [batch, classes] float32.
    """

    builders: ClassVar[Registry[Builder]] = Registry(
        "framework",
        {
            "torch": Entry("models.torch.he_resnet:HeResNetBuilder"),
            "tensorflow": Entry("models.keras.he_resnet:HeResNetBuilder", "tensorflow"),
            "jax": Entry("models.flax.he_resnet:HeResNetBuilder", "jax"),
            "mxnet": Entry("models.mxnet.he_resnet:HeResNetBuilder", command="make mxnet-env"),
            "tripy": Entry("models.tripy.he_resnet:HeResNetBuilder", "tripy"),
        },
    )
    home: ClassVar[Task] = Task(kind=TaskKind.CLASSIFICATION, input_shape=(3, 32, 32), outputs=43)
    options: ClassVar[Mapping[str, Option]] = {
        "side": Option(default=32, help="Height and width of the images.", choices=(32, 48, 64))
    }
    recipe: ClassVar[Mapping[str, Any]] = {
        "batch": 64,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.9,
    }
    initialisation: ClassVar[str] = "he-normal"

    def input_shape(self, settings: Mapping[str, Value]) -> tuple[int, ...]:
        side = int(settings["side"])
        return (3, side, side)


@final
class ResNet20(HeResNet):
    """Three blocks per stage: 271,867 parameters for 43 classes, 269,722 for ten."""

    name: ClassVar[str] = "resnet20"


@final
class ResNet32(HeResNet):
    """Five blocks per stage: 466,299 parameters for 43 classes, 464,154 for ten."""

    name: ClassVar[str] = "resnet32"

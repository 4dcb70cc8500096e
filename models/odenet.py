"""ResNet and ODENet families: a convolutional trunk with two stages of residual or ODE layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

from models.base import Builder, Family
from models.ode import GRADIENTS
from toolkit.core.options import Option
from toolkit.core.registry import Entry, Registry
from toolkit.core.specs import Task, TaskKind

BLOCKS = Option(default=1, help="Residual blocks a stage.", least=1)
ACCURACY = Option(
    default=0.25,
    help="Euler's method takes 1 / accuracy steps, rounded up.",
    least=0.001,
)
GRADIENT = Option(
    default="adjoint",
    help="How the gradient passes an ODE layer; the outputs are the same.",
    choices=GRADIENTS,
)


class Trunk(Family):
    """Trunk of three convolutions with 16, 32 and 64 channels, and two stages.

    The convolutions are 3x3 with bias and padding 1. A batch norm, a ReLU and a 2x2 average pooling
    follow each. Stage 1 follows the second convolution, on 32x8x8 values, and stage 2 the third, on
    64x4x4. A 2x2 average pooling and a dense layer come last. The input is `input`
    [batch, 3, 32, 32] float32, the output `logits` [batch, classes] float32.
    """

    home: ClassVar[Task] = Task(kind=TaskKind.CLASSIFICATION, input_shape=(3, 32, 32), outputs=10)
    recipe: ClassVar[Mapping[str, Any]] = {
        "batch": 200,
        "optimizer": "adam",
        "learning_rate": 0.001,
    }


def _builders() -> Registry[Builder]:
    return Registry(
        "framework",
        {
            "torch": Entry("models.torch.odenet:TrunkBuilder"),
            "tensorflow": Entry("models.keras.odenet:TrunkBuilder", "tensorflow"),
            "tripy": Entry("models.tripy.odenet:TrunkBuilder", "tripy"),
        },
    )


@final
class ResNet(Trunk):
    """Trunk with two residual stages; a block applies one convolution and batch norm twice."""

    name: ClassVar[str] = "resnet"
    builders: ClassVar[Registry[Builder]] = _builders()
    options: ClassVar[Mapping[str, Option]] = {"blocks": BLOCKS}


@final
class ODENet(Trunk):
    """Trunk with two ODE layers (Chen et al., Neural Ordinary Differential Equations, 2018)."""

    name: ClassVar[str] = "odenet"
    builders: ClassVar[Registry[Builder]] = _builders()
    options: ClassVar[Mapping[str, Option]] = {"accuracy": ACCURACY, "gradient": GRADIENT}


@final
class ResidualODENet(Trunk):
    """Trunk with a residual stage 1 and an ODE layer as stage 2."""

    name: ClassVar[str] = "residual-odenet"
    builders: ClassVar[Registry[Builder]] = _builders()
    options: ClassVar[Mapping[str, Option]] = {
        "blocks": BLOCKS,
        "accuracy": ACCURACY,
        "gradient": GRADIENT,
    }

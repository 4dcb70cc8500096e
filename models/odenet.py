"""A trunk of convolutions with two stages between, of residual blocks or of ODE layers."""

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
    """All convolutions 3x3 with bias, padding 1; behind each batch norm, ReLU, mean of 2x2.

    16 channels; 32 channels and stage 1 at 8x8; 64 channels and stage 2 at 4x4; mean of 2x2; dense.
    Takes `input` [batch, 3, 32, 32] float32 and gives `logits` [batch, classes] float32.
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
    """Both stages residual: blocks of one convolution and batch norm, each applied twice."""

    name: ClassVar[str] = "resnet"
    builders: ClassVar[Registry[Builder]] = _builders()
    options: ClassVar[Mapping[str, Option]] = {"blocks": BLOCKS}


@final
class ODENet(Trunk):
    """Both stages an ODE layer (Chen et al., Neural Ordinary Differential Equations, 2018)."""

    name: ClassVar[str] = "odenet"
    builders: ClassVar[Registry[Builder]] = _builders()
    options: ClassVar[Mapping[str, Option]] = {"accuracy": ACCURACY, "gradient": GRADIENT}


@final
class ResidualODENet(Trunk):
    """Stage 1 residual, stage 2 an ODE layer."""

    name: ClassVar[str] = "residual-odenet"
    builders: ClassVar[Registry[Builder]] = _builders()
    options: ClassVar[Mapping[str, Option]] = {
        "blocks": BLOCKS,
        "accuracy": ACCURACY,
        "gradient": GRADIENT,
    }

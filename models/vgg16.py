"""VGG16 for 3x32x32 images (Simonyan and Zisserman, 2014, configuration D)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

from models.base import Builder, Family
from toolkit.core.options import Option
from toolkit.core.registry import Entry, Registry
from toolkit.core.specs import Task, TaskKind

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""The widths of the convolutions before each max-pooling."""
HIDDEN = 512


@final
class VGG16(Family):
    """The 13 3x3 convolutions of configuration D, dense 512-512-512-classes, ReLU between.

    Max-pooling 2x2 ends each of the five stages, 32-16-8-4-2-1, so that 512 values come to the
    dense layers, which are as wide. A batch norm (eps 1e-5, momentum 0.1) stands behind each
    convolution, with which all layers learn from random weights at the study's learning rate; the
    paper, without, starts from the weights of a shallower net. Dropout behind the two hidden dense
    layers. 15,299,748 parameters for 100 classes. Takes `input` [batch, 3, 32, 32] float32 and
    gives `logits` [batch, classes] float32.
    """

    name: ClassVar[str] = "vgg16"
    builders: ClassVar[Registry[Builder]] = Registry(
        "framework",
        {
            "torch": Entry("models.torch.vgg16:VGG16Builder"),
            "tensorflow": Entry("models.keras.vgg16:VGG16Builder", "tensorflow"),
            "tripy": Entry("models.tripy.vgg16:VGG16Builder", "tripy"),
        },
    )
    home: ClassVar[Task] = Task(kind=TaskKind.CLASSIFICATION, input_shape=(3, 32, 32), outputs=100)
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

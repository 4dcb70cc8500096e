"""VGG16 for 3x32x32 images (Simonyan and Zisserman, 2014, configuration D)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

from models.base import Builder, Family
from toolkit.core.options import Option
from toolkit.core.registry import Entry, Registry
from toolkit.core.specs import Task, TaskKind

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Widths of the convolutions of each stage; a max-pooling ends a stage."""
HIDDEN = 512


@final
class VGG16(Family):
    """13 3x3 convolutions of configuration D, dense layers 512-512-512-classes, ReLU between.

    A 2x2 max-pooling ends each of the five stages, with sides 32-16-8-4-2-1. The dense layers thus
    take 512 values, and are of the same width. A batch norm (eps 1e-5, momentum 0.1) follows each
    convolution, so that all layers can learn from random weights at the study's learning rate; the
    paper has none, and starts from the weights of a shallower net. Dropout follows the two hidden
    dense layers. The model has 15,299,748 parameters for 100 classes. The input is `input`
    [batch, 3, 32, 32] float32, the output `logits` [batch, classes] float32.
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

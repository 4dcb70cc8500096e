"""IDSIA net for traffic signs (Ciresan et al., 2012, Multi-Column Deep Neural Network)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

from models.base import Builder, Family
from toolkit.core.registry import Entry, Registry
from toolkit.core.specs import Task, TaskKind


@final
class IDSIA(Family):
    """Convolutions 100 3x3, 150 4x4, 250 3x3 with max-pooling, dense layers 4000-230-classes.

    This is one column of the paper's committee, with ReLU in place of its scaled tanh. It has
    1,510,863 parameters for 43 classes. The input is `input` [batch, 3, 48, 48] float32, the output
    `logits` [batch, classes] float32.
    """

    name: ClassVar[str] = "idsia"
    builders: ClassVar[Registry[Builder]] = Registry(
        "framework",
        {
            "torch": Entry("models.torch.idsia:IDSIABuilder"),
            "tensorflow": Entry("models.keras.idsia:IDSIABuilder", "tensorflow"),
            "mxnet": Entry("models.mxnet.idsia:IDSIABuilder", command="make mxnet-env"),
            "tripy": Entry("models.tripy.idsia:IDSIABuilder", "tripy"),
        },
    )
    home: ClassVar[Task] = Task(kind=TaskKind.CLASSIFICATION, input_shape=(3, 48, 48), outputs=43)
    recipe: ClassVar[Mapping[str, Any]] = {
        "batch": 64,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.9,
    }
    initialisation: ClassVar[str] = "he-normal"

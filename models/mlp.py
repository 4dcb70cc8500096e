"""Multilayer perceptron with one hidden layer, for tabular data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

from models.base import Builder, Family
from toolkit.core.errors import UsageError
from toolkit.core.options import Option, Value
from toolkit.core.registry import Entry, Registry
from toolkit.core.specs import Task, TaskKind


@final
class MLP(Family):
    """Two dense layers features-`hidden`-outputs with a ReLU between, to predict values or classes.

    It has 1,281 parameters for the eight features and one value of California Housing. The input is
    `input` [batch, features] float32, the output `values` or `logits` [batch, outputs] float32.
    """

    name: ClassVar[str] = "mlp"
    builders: ClassVar[Registry[Builder]] = Registry(
        "framework",
        {
            "torch": Entry("models.torch.mlp:MLPBuilder"),
            "tensorflow": Entry("models.keras.mlp:MLPBuilder", "tensorflow"),
            "jax": Entry("models.flax.mlp:MLPBuilder", "jax"),
            "mxnet": Entry("models.mxnet.mlp:MLPBuilder", command="make mxnet-env"),
            "tripy": Entry("models.tripy.mlp:MLPBuilder", "tripy"),
        },
    )
    home: ClassVar[Task] = Task(kind=TaskKind.REGRESSION, input_shape=(8,), outputs=1)
    options: ClassVar[Mapping[str, Option]] = {
        "hidden": Option(default=128, help="Units of the hidden layer.", least=1)
    }
    recipe: ClassVar[Mapping[str, Any]] = {
        "batch": 64,
        "optimizer": "adam",
        "learning_rate": 0.001,
    }

    def input_shape(self, settings: Mapping[str, Value]) -> None:
        return None

    def refuse(self, task: Task, settings: Mapping[str, Value]) -> None:
        if len(task.input_shape) != 1:
            raise UsageError(
                f"Model {self.name!r} got a task of {task}, expected rows of one axis: features.",
                hint="Choose another data set, or a model for images: toolkit models.",
            )

"""What a model family is, apart from any framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from toolkit.core.errors import SourceError, UsageError
from toolkit.core.options import Option, Value, settle
from toolkit.core.registry import Registry
from toolkit.core.specs import ModelSpec, Signature, Task, TaskKind, TensorSpec

Weights = Mapping[str, np.ndarray]
"""Parameters and buffers under the names and in the layouts of torch's state_dict."""

INPUT = "input"
OUTPUTS = {TaskKind.CLASSIFICATION: "logits", TaskKind.REGRESSION: "values"}
LAYOUTS = {1: "NC", 3: "NCHW"}  # by the number of axes of one row


@dataclass(frozen=True, kw_only=True)
class Size:
    """Trainable values, and the bytes of all parameters and buffers."""

    parameters: int
    state_dict_bytes: int


def _types(settings: Mapping[str, Value]) -> dict[str, type]:
    return {name: type(value) for name, value in settings.items()}


class Builder(ABC):
    """Makes a family's module in one framework, and moves weights in and out of it."""

    @abstractmethod
    def build(self, spec: ModelSpec) -> Any:
        """The module with any weights."""

    @abstractmethod
    def weights(self, module: Any) -> dict[str, np.ndarray]:
        """Copies of all parameters and buffers, as `Weights` has them."""

    @abstractmethod
    def restore(self, module: Any, weights: Weights) -> None:
        """Puts the weights into the module, every bit.

        Raises IntegrityError when names, shapes or dtypes are not the module's.
        """

    @abstractmethod
    def size(self, spec: ModelSpec) -> Size:
        """How large the module is, counted on it as `Weights`."""


def signature_of(task: Task) -> Signature:
    """What every model for a task takes and gives: one input and one output, channels first."""
    inputs = TensorSpec(
        name=INPUT,
        dtype="float32",
        shape=("batch", *task.input_shape),
        layout=LAYOUTS.get(len(task.input_shape)),
    )
    outputs = TensorSpec(
        name=OUTPUTS[task.kind], dtype="float32", shape=("batch", task.outputs), layout="NC"
    )
    return Signature(inputs=(inputs,), outputs=(outputs,))


class Family(ABC):
    """A model architecture: what it takes and gives, and who builds it.

    `home` is the task of the study that it comes from, `options` what `--set` takes, `recipe` how
    it is trained unless told otherwise (fields of toolkit.training.base.Recipe).
    `initialisation` names a scheme of models/initial.py.
    """

    name: ClassVar[str]
    builders: ClassVar[Registry[Builder]]
    home: ClassVar[Task]
    options: ClassVar[Mapping[str, Option]] = {}
    recipe: ClassVar[Mapping[str, Any]] = {}
    initialisation: ClassVar[str] = "default"

    def input_shape(self, settings: Mapping[str, Value]) -> tuple[int, ...] | None:
        """The shape of a row that the model takes with these options; None for any.

        A data set that can give its rows in several shapes is asked for this one.
        """
        return self.home.input_shape

    def refuse(self, task: Task, settings: Mapping[str, Value]) -> None:
        """Raises UsageError for a task that the family has no answer to."""
        shape = self.input_shape(settings)
        if task.kind is not self.home.kind or shape not in (None, task.input_shape):
            wanted = Task(
                kind=self.home.kind, input_shape=shape or task.input_shape, outputs=task.outputs
            )
            raise UsageError(
                f"Model {self.name!r} got a task of {task} ({task.kind}), expected one of {wanted} "
                f"({wanted.kind}).",
                hint="Choose another data set, another model, or other options: toolkit models.",
            )

    @final
    def spec(
        self,
        framework: str,
        *,
        task: Task | None = None,
        data: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> ModelSpec:
        """The family's model for a task: `home` unless told.

        Raises UnknownNameError for an option that the family has not, UsageError for a value that
        cannot be meant or a task that does not fit.
        """
        settled = settle(f"model {self.name!r}", self.options, settings)
        if task is None:
            shape = self.input_shape(settled) or self.home.input_shape
            task = Task(kind=self.home.kind, input_shape=shape, outputs=self.home.outputs)
        self.refuse(task, settled)
        return ModelSpec(
            name=self.name,
            family=self.name,
            framework=framework,
            signature=signature_of(task),
            task=task,
            data=data,
            hyperparameters=settled,
        )

    @final
    def check(self, spec: ModelSpec) -> None:
        """Raise SourceError unless `spec` is the one that `spec()` makes of its task and options.

        A spec that a manifest stores may hold anything, and builders rely on it. Types are compared
        too, since True and 8.0 equal 1 and 8.
        """
        known = self.spec(
            spec.framework, task=spec.task, data=spec.data, settings=spec.hyperparameters
        )
        for part in ("task", "signature", "hyperparameters"):
            found, expected = getattr(spec, part), getattr(known, part)
            if found != expected or (
                part == "hyperparameters" and _types(found) != _types(expected)
            ):
                raise SourceError(
                    f"The {part} of model {self.name!r} is {found}, expected {expected}.",
                    hint="The manifest was altered, or another version of the toolkit wrote it.",
                )

"""Base classes of model families and of their builders, independent of any framework."""

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
"""Parameters and buffers, with the names and layouts of a torch state_dict."""

INPUT = "input"
OUTPUTS = {TaskKind.CLASSIFICATION: "logits", TaskKind.REGRESSION: "values"}
LAYOUTS = {1: "NC", 3: "NCHW"}  # by the number of axes of one sample


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of a model: its trainable values, and the bytes of all parameters and buffers."""

    parameters: int
    state_dict_bytes: int


def _types(settings: Mapping[str, Value]) -> dict[str, type]:
    return {name: type(value) for name, value in settings.items()}


class Builder(ABC):
    """Builder of a family's modules in one framework, which also gets and sets their weights."""

    @abstractmethod
    def build(self, spec: ModelSpec) -> Any:
        """Build the module, with arbitrary weights."""

    @abstractmethod
    def weights(self, module: Any) -> dict[str, np.ndarray]:
        """Return copies of all parameters and buffers, with names and layouts as in `Weights`."""

    @abstractmethod
    def restore(self, module: Any, weights: Weights) -> None:
        """Copy the weights into the module, bit for bit.

        Raises IntegrityError if names, shapes or dtypes differ from the module's.
        """

    @abstractmethod
    def size(self, spec: ModelSpec) -> Size:
        """Return the size of the module, counted on its `Weights`."""


def signature_of(task: Task) -> Signature:
    """Return the signature of every model for a task: one input, channels first, and one output."""
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
    """Model architecture: its default task, its options, and its builders by framework.

    `home` is the default task, which is that of the study the architecture comes from. `options`
    are set with `--set`. `recipe` holds the default training settings (fields of
    toolkit.trainers.base.Recipe). `initialisation` names a scheme of models/initial.py.
    """

    name: ClassVar[str]
    builders: ClassVar[Registry[Builder]]
    home: ClassVar[Task]
    options: ClassVar[Mapping[str, Option]] = {}
    recipe: ClassVar[Mapping[str, Any]] = {}
    initialisation: ClassVar[str] = "default"

    def input_shape(self, settings: Mapping[str, Value]) -> tuple[int, ...] | None:
        """Return the shape of one sample that the model takes with these options, None for any.

        A data set that provides several shapes is asked for this one.
        """
        return self.home.input_shape

    def refuse(self, task: Task, settings: Mapping[str, Value]) -> None:
        """Raise UsageError if the family has no model for the task."""
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
        """Return the spec of the family's model for a task, by default `home`.

        Without a task, the input has the shape that the options ask for. Raises UnknownNameError
        for an unknown option, and UsageError for an invalid value or a task that does not fit.
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
        """Raise SourceError unless `spec` equals what `spec()` returns for its task and options.

        Builders rely on the spec, and a stored manifest may contain anything. Types of option
        values are compared as well, because True == 1 and 8.0 == 8. Raises as `spec()` for an
        unknown option, an invalid value or a task that does not fit.
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

"""The Keras model of a training job: a family's twin, or a user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

import models
from models.base import Builder
from models.keras.base import by_path, reseed
from models.weights import refuse_misfit
from toolkit.core.errors import UsageError
from toolkit.core.specs import Task, TaskKind
from toolkit.training.base import Job

CHANNELS_LAST, CHANNELS_FIRST = (0, 2, 3, 1), (0, 1, 2, 3)


@final
class Net:
    """A Keras model, its weights by their names in the checkpoint, and what it is trained for.

    A user's model has the names of its variables' paths, and may take images in either layout.
    """

    def __init__(self, job: Job) -> None:
        task = job.spec.task
        assert task is not None
        self._task = task
        self._builder: Builder | None = None
        if job.module is None:
            self._builder = models.builder(job.spec, "tensorflow")
            self.model: keras.Model = self._builder.build(job.spec)
            self.turned = True
        else:
            self.model = own_model(job.module)
            self.turned = _fit(self.model, task)
        self.restore(job.weights)

    @property
    def parameters(self) -> list[Any]:
        return list(self.model.trainable_variables)

    def weights(self) -> dict[str, np.ndarray]:
        """Copies, by name."""
        if self._builder is not None:
            return self._builder.weights(self.model)
        return by_path(self.model)

    def restore(self, weights: Mapping[str, np.ndarray]) -> None:
        """Raises IntegrityError for weights that are not the model's."""
        if self._builder is not None:
            self._builder.restore(self.model, weights)
            return
        refuse_misfit(by_path(self.model), weights)
        for variable in self.model.weights:
            variable.assign(weights[variable.path])

    def reseed(self, seed: int) -> None:
        """Lets dropout draw anew from `seed`."""
        reseed(self.model, seed)

    def loss(self, outputs: Any, targets: Any) -> Any:
        """The mean over the batch that is trained on."""
        if self._task.kind is TaskKind.CLASSIFICATION:
            rows = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=outputs)
            return tf.reduce_mean(rows)
        return tf.reduce_mean(tf.square(outputs - targets))

    def metric(self, outputs: Any, targets: Any) -> Any:
        """The sum over the rows of the batch, float32."""
        if self._task.kind is TaskKind.CLASSIFICATION:
            hits = tf.argmax(outputs, axis=1, output_type=targets.dtype) == targets
            return tf.reduce_sum(tf.cast(hits, tf.float32))
        return tf.reduce_sum(tf.reduce_mean(tf.abs(outputs - targets), axis=1))


def own_model(module: Callable[[], Any]) -> keras.Model:
    """What a user's factory gives. Raises UsageError when that is no Keras model."""
    # Names such as dense_1 count from the process' start otherwise, not from the model's.
    keras.utils.clear_session(free_memory=False)
    made = module()
    if not isinstance(made, keras.Model):
        raise UsageError(
            f"The factory gave a {type(made).__name__}, expected a keras.Model.",
            hint="Return a Keras model, or choose the framework of what it returns: --framework.",
        )
    return made


def _fit(model: keras.Model, task: Task) -> bool:
    """Whether a user's model takes images with the channels last.

    Raises UsageError for a model that does not take the task's rows or give its outputs.
    """
    rows = np.zeros((2, *task.input_shape), np.float32)
    layouts = (CHANNELS_LAST, CHANNELS_FIRST) if rows.ndim == 4 else (tuple(range(rows.ndim)),)
    problems = []
    for axes in layouts:
        if not _takes(model, tuple(rows.shape[axis] for axis in axes[1:])):
            problems.append(f"it takes rows of shape {list(model.inputs[0].shape[1:])}")
            continue
        try:
            outputs = model(rows.transpose(axes), training=False)
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            problems.append(str(error).strip().splitlines()[0])
            continue
        if (shape := tuple(getattr(outputs, "shape", ()))) == (2, task.outputs):
            return axes == CHANNELS_LAST
        problems.append(f"two rows gave outputs of shape {list(shape)}")
    raise UsageError(
        f"The Keras model does not fit a task of {task}: {'; '.join(problems)}.",
        hint="Let it take [N, ...] of that shape, and give [N, outputs]: logits, or values.",
    )


def _takes(model: keras.Model, row: tuple[int, ...]) -> bool:
    """Whether rows of this shape are what the model says it takes, if it says so.

    Calling it does not tell: a model that only flattens takes any layout.
    """
    if not (inputs := getattr(model, "inputs", None)):
        return True
    said = tuple(inputs[0].shape[1:])
    return len(said) == len(row) and all(s in (None, r) for s, r in zip(said, row, strict=True))

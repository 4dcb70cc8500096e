"""Keras model of a training job, built by a family or by user code, with its loss and metric."""

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
from toolkit.trainers.base import Job

CHANNELS_LAST, CHANNELS_FIRST = (0, 2, 3, 1), (0, 1, 2, 3)


@final
class Net:
    """Keras model with its loss and metric, and its weights by their names in the checkpoint.

    The weights of a user's model are named by the paths of its variables. `turned` is whether the
    model takes images channels last; a user's model may use either layout. Raises UsageError for a
    user's model that does not fit the task, and IntegrityError for weights that do not fit.
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
        """Return copies of the weights, by name."""
        if self._builder is not None:
            return self._builder.weights(self.model)
        return by_path(self.model)

    def restore(self, weights: Mapping[str, np.ndarray]) -> None:
        """Set the weights. Raises IntegrityError if they do not fit the model."""
        if self._builder is not None:
            self._builder.restore(self.model, weights)
            return
        refuse_misfit(by_path(self.model), weights)
        for variable in self.model.weights:
            variable.assign(weights[variable.path])

    def reseed(self, seed: int) -> None:
        """Reset the random generators of dropout from `seed`."""
        reseed(self.model, seed)

    def loss(self, outputs: Any, targets: Any) -> Any:
        """Return the mean cross-entropy of logits, or the mean squared error, of a batch."""
        if self._task.kind is TaskKind.CLASSIFICATION:
            rows = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=outputs)
            return tf.reduce_mean(rows)
        return tf.reduce_mean(tf.square(outputs - targets))

    def metric(self, outputs: Any, targets: Any) -> Any:
        """Return the number of correct samples, or the sum of mean absolute errors, float32."""
        if self._task.kind is TaskKind.CLASSIFICATION:
            hits = tf.argmax(outputs, axis=1, output_type=targets.dtype) == targets
            return tf.reduce_sum(tf.cast(hits, tf.float32))
        return tf.reduce_sum(tf.reduce_mean(tf.abs(outputs - targets), axis=1))


def own_model(module: Callable[[], Any]) -> keras.Model:
    """Call a user's factory. Raises UsageError if it does not return a Keras model."""
    # Otherwise names such as dense_1 also count the layers of earlier models in the process.
    keras.utils.clear_session(free_memory=False)
    made = module()
    if not isinstance(made, keras.Model):
        raise UsageError(
            f"The factory gave a {type(made).__name__}, expected a keras.Model.",
            hint="Return a Keras model, or choose the framework of what it returns: --framework.",
        )
    return made


def _fit(model: keras.Model, task: Task) -> bool:
    """Return whether a user's model takes images channels last.

    If it takes both layouts, channels last is preferred. Raises UsageError if it does not take the
    samples of the task, or does not return [N, outputs].
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
    """Return whether `row`, the shape of a sample, fits the model's declared input, if any.

    A call of the model would not show this: a model that starts by flattening accepts any layout.
    """
    if not (inputs := getattr(model, "inputs", None)):
        return True
    said = tuple(inputs[0].shape[1:])
    return len(said) == len(row) and all(s in (None, r) for s, r in zip(said, row, strict=True))

"""Small training jobs, the same for every framework."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

import models
from models.initial import fresh_weights
from toolkit.core.specs import ModelSpec, Signature, Task, TaskKind
from toolkit.data.base import Split
from toolkit.trainers import TRAINERS
from toolkit.trainers.base import Job, Settings, TrainingSession
from toolkit.trainers.recipe import Recipe
from toolkit.trainers.run import epoch_of

FEATURES = 5
# What TensorFlow takes by itself: it may have been started by another test.
THREADS = os.cpu_count() or 1
NONE = Signature(inputs=(), outputs=())  # which no training looks at


def numbers(rows: int, seed: int = 0) -> Split:
    """Rows of FEATURES numbers, and a value that depends on them."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    noise = 0.1 * rng.normal(size=rows)
    values = np.sin(inputs[:, 0]) + inputs[:, 1] * inputs[:, 2] + noise
    return Split(inputs=inputs, targets=values[:, None].astype(np.float32))


def images(rows: int, side: int = 32) -> Split:
    """Images of noise, brighter in one corner for each of ten classes."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 10, rows)
    inputs = rng.normal(size=(rows, 3, side, side)).astype(np.float32)
    inputs[:, 0, 0, 0] += targets
    return Split(inputs=inputs, targets=targets)


def job(
    framework: str,
    mode: str,
    split: Split,
    *,
    model: str = "mlp",
    settings: dict[str, Any] | None = None,
    module: Callable[[], Any] | None = None,
    **recipe: Any,
) -> Job:
    """Three epochs in batches of 4 by default."""
    classes = split.targets.ndim == 1
    task = Task(
        kind=TaskKind.CLASSIFICATION if classes else TaskKind.REGRESSION,
        input_shape=split.inputs.shape[1:],
        outputs=10 if classes else 1,
    )
    values = {"epochs": 3, "seed": 1, "batch": 4, "learning_rate": 0.01, **recipe}
    plan = Recipe(**values)
    trainer = TRAINERS.create(framework)
    resources = Settings(threads=THREADS)
    trainer.start(resources)
    if module is not None:
        spec = ModelSpec(name="own", family="own", framework=framework, signature=NONE, task=task)
        weights = trainer.own_weights(module, plan.seed)
    else:
        family = models.FAMILIES.create(model)
        spec = family.spec(framework, task=task, settings=settings)
        weights = fresh_weights(trainer.shapes(spec), plan.seed, family.initialisation)
    return Job(
        spec=spec,
        mode=mode,
        recipe=plan,
        train=split,
        weights=weights,
        settings=resources,
        module=module,
    )


def opened(job: Job) -> TrainingSession:
    return TRAINERS.create(job.spec.framework).open(job)


def losses(session: TrainingSession, job: Job, first: int = 0) -> np.ndarray:
    """Of all steps of the recipe's epochs from `first` on."""
    epochs = [epoch_of(job.recipe, n, len(job.train)) for n in range(first, job.recipe.epochs)]
    return np.concatenate([session.run_epoch(epoch).losses for epoch in epochs])

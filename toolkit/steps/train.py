"""Train a model: name and data -> checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import models
from models.initial import fresh_weights
from toolkit.core.artifact import Checkpoint
from toolkit.core.errors import unknown_name
from toolkit.core.files import new_directory, refuse_existing
from toolkit.core.options import settle
from toolkit.core.progress import Progress, Silent
from toolkit.data import load_splits
from toolkit.measuring.environment import session_options
from toolkit.training import TRAINERS
from toolkit.training.base import Job, Settings
from toolkit.training.recipe import METRICS, Recipe
from toolkit.training.run import run


def train(
    model: str,
    *,
    data: str,
    out: str | os.PathLike[str],
    epochs: int = 10,
    seed: int = 0,
    framework: str = "torch",
    mode: str | None = None,
    threads: int | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **recipe: Any,
) -> Checkpoint:
    """Trains `model` on `data`, and writes a checkpoint to the new directory `out`.

    `settings` are options of the model. `recipe` overrides single values of the family's own, see
    toolkit.training.recipe.Recipe. Ctrl-C keeps the finished epochs. Raises UnknownNameError,
    OutputExistsError, UsageError for what cannot be meant, UnavailableError for a missing
    framework.
    """
    target = Path(out)
    refuse_existing(target)
    listener = progress or Silent()
    family = models.FAMILIES.create(model)
    family.builders.entry(framework)
    for name in recipe:
        if name not in (known := [field.name for field in fields(Recipe)]):
            raise unknown_name("value of a recipe", name, known)
    plan = Recipe(epochs=epochs, seed=seed, **{**family.recipe, **recipe})
    settled = settle(f"model {model!r}", family.options, settings)
    splits = load_splits(data, shape=family.input_shape(settled), progress=listener)
    spec = family.spec(framework, task=splits.task, data=data, settings=settled)
    trainer = TRAINERS.create(framework)
    job = Job(
        spec=spec,
        mode=mode or next(iter(trainer.modes)),
        recipe=plan,
        train=splits.train,
        weights=fresh_weights(trainer.shapes(spec), seed, family.initialisation),
        settings=Settings(threads=session_options(threads).threads),
    )
    # Before the training, so that a place that cannot be written costs nothing.
    with new_directory(target) as partial:
        with trainer.open(job) as session:
            trained = run(session, job, splits.test, listener)
        last = trained.history[-1]
        Checkpoint.save(
            partial,
            spec=spec,
            weights=trained.weights,
            seed=seed,
            epoch=len(trained.history),
            metrics={
                "test_loss": last.test_loss,
                f"test_{METRICS[splits.task.kind]}": last.test_metric,
            },
            training={
                "framework": framework,
                "mode": job.mode,
                "recipe": plan.to_json(),
                "history": [record.to_json() for record in trained.history],
                "prepare_ns": trained.prepare_ns,
                "interrupted": trained.interrupted,
                "data": data,
                "preprocessing": dict(splits.preprocessing),
            },
        )
    return Checkpoint.load(target)

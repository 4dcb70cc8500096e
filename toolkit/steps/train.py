"""Train a model: name and data -> checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import models
from toolkit.core.artifact import Checkpoint
from toolkit.core.files import new_directory, refuse_existing
from toolkit.core.progress import Progress, Silent
from toolkit.data import DATA_SETS
from toolkit.training import TRAINERS
from toolkit.training.base import Recipe


def train(
    model: str,
    *,
    data: str,
    out: str | os.PathLike[str],
    epochs: int = 10,
    seed: int = 0,
    framework: str = "torch",
    progress: Progress | None = None,
    **recipe: Any,
) -> Checkpoint:
    """Trains `model` on `data`, and writes a checkpoint to the new directory `out`.

    `recipe` overrides single values of the family's own: batch, learning_rate, momentum,
    weight_decay. Ctrl-C keeps the finished epochs. Raises UnknownNameError, OutputExistsError,
    UsageError for a recipe that cannot be meant, UnavailableError for a missing framework.
    """
    target = Path(out)
    refuse_existing(target)
    family = models.FAMILIES.create(model)
    family.builders.entry(framework)
    plan = Recipe(epochs=epochs, seed=seed, **{**family.recipe, **recipe})
    data_set = DATA_SETS.create(data)
    spec = family.spec(framework, data=data, classes=data_set.classes)
    splits = data_set.load()
    # Before the training, so that a place that cannot be written costs nothing.
    with new_directory(target) as partial:
        trained = TRAINERS.create(framework).train(spec, splits, plan, progress or Silent())
        last = trained.history[-1]
        Checkpoint.save(
            partial,
            spec=spec,
            weights=trained.weights,
            seed=seed,
            epoch=len(trained.history),
            metrics={"test_loss": last.test_loss, "test_accuracy": last.test_accuracy},
            training={
                "recipe": plan.to_json(),
                "history": [epoch.to_json() for epoch in trained.history],
                "interrupted": trained.interrupted,
                "data": data,
                "preprocessing": dict(splits.preprocessing),
            },
        )
    return Checkpoint.load(target)

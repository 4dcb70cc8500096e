"""Measure the training speed of a model in several frameworks, in turn."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import models
from toolkit.benchmarking.training_runner import TrainingComparison, measure_training
from toolkit.core.errors import UsageError, unknown_name
from toolkit.core.measurement import Result
from toolkit.core.options import settle
from toolkit.core.progress import Progress, Silent
from toolkit.core.usercode import is_user_code
from toolkit.data import load_splits
from toolkit.data.base import Split
from toolkit.measuring.machine.environment import session_options
from toolkit.measuring.timing.engine import Procedure
from toolkit.measuring.workers.client import check_timeout
from toolkit.sources.runtime_selection import DEVICES
from toolkit.sources.user_model import OWN_RECIPE
from toolkit.trainers.recipe import RATES, Recipe

PROCEDURE = Procedure(max_seconds=60.0)
HELD = ("batch", "epochs", "schedule", "augmentation", "seed")  # set by the benchmark


def bench_training(
    model: str,
    *,
    data: str,
    trainers: Sequence[str],
    batches: Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
    rows: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    cpus: Collection[int] | None = None,
    device: str = "cpu",
    procedure: Procedure = PROCEDURE,
    pythons: Mapping[str, str | os.PathLike[str]] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    data_settings: Mapping[str, Any] | None = None,
    timeout_s: float = 600.0,
    out: str | os.PathLike[str] = "results",
    progress: Progress | None = None,
    **recipe: Any,
) -> Result:
    """Train `model` with every trainer at every batch, and store the result as `out/<id>.json`.

    `model` names a family, or a user's callable as described in toolkit.core.usercode. A trainer is
    `framework:mode`, or a framework for its first mode. Each trainer has its own process. All start
    from the same weights, see the same batches, and run a block of epochs in turn. The learning
    rate is constant, and samples are not augmented. By default, the batch is that of the family's
    recipe, and all training samples are used; `rows` limits them to the first ones. `pythons` has
    interpreters by framework. All train on `device`: cpu, cuda or, in torch, cuda:1. `recipe`
    overrides single values of the family's recipe, see toolkit.trainers.recipe.Recipe.

    A row that fails keeps the reason and its measurements so far; the others continue. On Ctrl-C,
    the rows so far are stored, then KeyboardInterrupt is raised. Before anything is measured,
    raises UnknownNameError, UsageError, and what the data set raises.
    """
    listener = progress or Silent()
    family = None if is_user_code(model) else models.FAMILIES.create(model)
    settled = settle(f"model {model!r}", family.options if family else {}, settings)
    labels = _checked_trainers(trainers)
    recipes = _recipes(family.recipe if family else OWN_RECIPE, batches, seed, recipe)
    check_timeout(timeout_s)
    if device.partition(":")[0] not in DEVICES:
        raise unknown_name("device", device, DEVICES)
    pinned = None if cpus is None else frozenset(cpus)
    options = session_options(threads, pinned)
    splits = load_splits(
        data,
        shape=family.input_shape(settled) if family else None,
        directory=None if data_dir is None else Path(data_dir),
        settings=data_settings,
        progress=listener,
    )
    if family is not None:
        family.refuse(splits.task, settled)
    comparison = TrainingComparison(
        model=model,
        family=family,
        settings=settled,
        task=splits.task,
        data=data,
        train=_first_rows(splits.train, rows, recipes),
        trainers=labels,
        recipes=recipes,
        threads=options.threads,
        cpus=pinned,
        device=device,
        procedure=procedure,
        pythons=pythons or {},
        timeout_s=timeout_s,
    )
    return measure_training(comparison, Path(out), listener)


def _checked_trainers(trainers: Sequence[str]) -> list[str]:
    """Return the trainers. Raises UsageError for none, an invalid name, or one given twice."""
    for label in trainers:
        framework, colon, mode = label.partition(":")
        if not framework or (colon and not mode):
            raise UsageError(
                f"Got trainer {label!r}, expected framework:mode.",
                hint="Give, for example, --trainer torch:eager,torch:compile.",
            )
    if not trainers or len(set(trainers)) < len(trainers):
        raise UsageError(
            f"Got trainers {', '.join(trainers) or 'none'}; expected one or more, each once.",
            hint="Give, for example, --trainer torch:eager,torch:compile.",
        )
    return list(trainers)


def _recipes(
    usual: Mapping[str, Any],
    batches: Sequence[int] | None,
    seed: int,
    given: Mapping[str, Any],
) -> list[Recipe]:
    """Return one recipe per batch, the family's with the given values in place of its own.

    The learning rate is constant, since a measurement has no last epoch for it to decay to. With
    another optimizer, it is by default the usual one of that optimizer, and the momentum 0. Raises
    UnknownNameError for a value that a recipe lacks or that the benchmark sets, and UsageError for
    no batches.
    """
    known = [field.name for field in fields(Recipe) if field.name not in HELD]
    for name in given:
        if name not in known:
            raise unknown_name("value of a recipe", name, known)
    held = {"epochs": 1, "schedule": "constant", "augmentation": (), "seed": seed}
    optimizer = given.get("optimizer")
    if optimizer in RATES and optimizer != usual.get("optimizer", "sgd"):
        usual = {**usual, "learning_rate": RATES[optimizer], "momentum": 0.0}
    values = {**usual, **given, **held}
    sizes = [values["batch"]] if batches is None else list(dict.fromkeys(batches))
    if not sizes:
        raise UsageError("Got no batches.", hint="Give, for example, --batch-size 64,200.")
    return [Recipe(**{**values, "batch": size}) for size in sizes]


def _first_rows(train: Split, rows: int | None, recipes: Sequence[Recipe]) -> Split:
    """Return the first `rows` samples, by default all.

    Raises UsageError if there are not that many, or fewer than the largest batch.
    """
    count = len(train) if rows is None else rows
    largest = max(recipe.batch for recipe in recipes)
    if not largest <= count <= len(train):
        raise UsageError(
            f"Got batches of {largest} from {count:,} of {len(train):,} training rows.",
            hint="Give --batch-size no more than --rows, and --rows no more than the data has.",
        )
    return Split(inputs=train.inputs[:count], targets=train.targets[:count])

"""Train a family or user code on a data set, and write a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import models
from models.initial import fresh_weights
from toolkit.core.artifact import PROGRAM, Checkpoint
from toolkit.core.codec import encode
from toolkit.core.documents import Json
from toolkit.core.errors import (
    CheckFailedError,
    ToolkitError,
    UnavailableError,
    UsageError,
    unknown_name,
)
from toolkit.core.files import (
    new_directory,
    refuse_existing,
    replaced_directory,
    write_atomically,
)
from toolkit.core.options import settle
from toolkit.core.progress import Progress, Silent
from toolkit.core.specs import ModelSpec
from toolkit.core.usercode import UserCode, is_user_code, load_user_code
from toolkit.data import data_set, load_splits
from toolkit.data.base import Splits
from toolkit.measuring.machine.environment import session_options
from toolkit.sources.user_model import OWN_RECIPE, own_spec
from toolkit.trainers import TRAINERS
from toolkit.trainers.base import Job, Settings, Trainer, TrainingSession
from toolkit.trainers.recipe import RATES, Recipe
from toolkit.trainers.run import EVALUATION_BATCH, Trained, metrics_of, run
from toolkit.training.resume import Request, Resumed

EPOCHS = 10
SHARED = "eager"  # the torch mode that several processes can share


def train(
    model: str | None = None,
    *,
    out: str | os.PathLike[str],
    data: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    data_settings: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    framework: str | None = None,
    mode: str | None = None,
    threads: int | None = None,
    device: str | None = None,
    loader_workers: int | None = None,
    deterministic: bool | None = None,
    processes: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **recipe: Any,
) -> Checkpoint:
    """Train `model` on `data`, and write a checkpoint to the new directory `out`.

    `model` names a family, or a user's callable as described in toolkit.core.usercode. `settings`
    are options of the model, `data_settings` of the data set. `recipe` overrides single values of
    the family's recipe, see toolkit.trainers.recipe.Recipe. `resume` is a checkpoint to resume
    from: options that are left out are taken from it, and those given must agree with it, except
    for a larger number of epochs and the machine settings. `processes` share each batch, each with
    its own threads.

    `out` exists from before the first epoch, and always contains the last finished epoch; Ctrl-C,
    SIGTERM or SIGHUP ends the run there. Raises UnknownNameError, OutputExistsError, UsageError for
    invalid options, UnavailableError for a missing framework or device, CheckFailedError for a loss
    or weights that are not finite, ToolkitError if nothing more can be written. After the last two,
    `out` contains the last good epoch.
    """
    target = Path(out)
    refuse_existing(target)
    _require_known(recipe)
    request = Request(
        model=model,
        data=data,
        data_settings=data_settings or {},
        settings=settings or {},
        framework=framework,
        mode=mode,
        machine={
            "threads": threads,
            "device": device,
            "loader_workers": loader_workers,
            "deterministic": deterministic,
            "processes": processes,
        },
        recipe=recipe,
    )
    before = None if resume is None else Resumed.open(resume, request)
    if before is not None:
        request = before.request
    plan = _plan(request, None if data_dir is None else Path(data_dir), progress or Silent())
    if before is not None:
        before.check(plan.job.spec, plan.job.recipe, plan.training())
    with plan.trainer.open(plan.job) as session:
        return _run(session, plan, target, before)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a run needs, with all options resolved."""

    trainer: Trainer
    job: Job
    splits: Splits
    own: UserCode | None
    program: bytes | None
    progress: Progress

    def training(self) -> Json:
        """Return the part of the checkpoint's `training` that is known before training."""
        spec = self.job.spec
        return {
            "framework": spec.framework,
            "mode": self.job.mode,
            "recipe": encode(self.job.recipe),
            "machine": asdict(self.job.settings),
            "rows": {"train": len(self.splits.train), "test": len(self.splits.test)},
            "preprocessing": dict(self.splits.preprocessing),
            "source": self.own and {"code": self.own.source, "digest": self.own.digest},
        }


def _plan(request: Request, data_dir: Path | None, progress: Progress) -> Plan:
    if request.model is None or request.data is None:
        missing = "a model" if request.model is None else "data"
        raise UsageError(
            f"Missing {missing}: nothing says what to train, or on what.",
            hint="Give MODEL and --data, such as: toolkit train lenet --data digits --out lenet.",
        )
    framework = request.framework or "torch"
    own = load_user_code(request.model) if is_user_code(request.model) else None
    source = data_set(request.data)
    data_settings = settle(f"data set {request.data!r}", source.options, request.data_settings)

    def load(shape: tuple[int, ...] | None) -> Splits:
        assert request.data is not None
        return load_splits(
            request.data,
            shape=shape,
            directory=data_dir,
            settings=data_settings,
            progress=progress,
        )

    if own is not None:
        if request.settings:
            raise UsageError(
                f"Got --set {next(iter(request.settings))} for {own.source}, expected none.",
                hint="Options are those of a built-in model: set it in your callable.",
            )
        trainer = _trainer(framework, _machine(request))
        recipe = _recipe(OWN_RECIPE, source.augmentation, request.recipe)
        splits = load(None)
        spec = own_spec(own.name, framework, splits.task, request.data)
        weights = trainer.own_weights(own.make, recipe.seed)
    else:
        family = models.FAMILIES.create(request.model)
        family.builders.entry(framework)
        trainer = _trainer(framework, _machine(request))
        settled = settle(f"model {request.model!r}", family.options, request.settings)
        recipe = _recipe(family.recipe, source.augmentation, request.recipe)
        splits = load(family.input_shape(settled))
        spec = family.spec(framework, task=splits.task, data=request.data, settings=settled)
        weights = fresh_weights(trainer.shapes(spec), recipe.seed, family.initialisation)
    mode = request.mode or next(iter(trainer.modes))
    if mode not in trainer.modes:
        raise unknown_name(f"training mode of {framework}", mode, trainer.modes)
    _require_shared(trainer, mode, _machine(request).processes)
    job = Job(
        spec=replace(spec, data_settings=data_settings),
        mode=mode,
        recipe=recipe,
        train=splits.train,
        weights=weights,
        settings=_machine(request),
        module=own.make if own else None,
    )
    return Plan(
        trainer=trainer,
        job=job,
        splits=splits,
        own=own,
        program=_program(trainer, job, progress),
        progress=progress,
    )


def _program(trainer: Trainer, job: Job, progress: Progress) -> bytes | None:
    try:
        return trainer.program(job)
    except UsageError as error:
        progress.note(f"warning: {error.problem} {error.hint}")
        return None


def _trainer(framework: str, settings: Settings) -> Trainer:
    trainer = TRAINERS.create(framework)
    found = trainer.probe()
    if not found.ok:
        raise UnavailableError(
            f"{framework} cannot train here: {found.reason}.",
            hint=found.hint or f"Install what it needs: {TRAINERS.entry(framework).install}",
        )
    trainer.start(settings)
    return trainer


def _machine(request: Request) -> Settings:
    given = {name: value for name, value in request.machine.items() if value is not None}
    workers = given.get("loader_workers", 0)
    if workers < 0:
        raise UsageError(
            f"Got {workers} loader workers, expected 0 or more.", hint="Give --loader-workers 0."
        )
    threads = session_options(given.get("threads")).threads
    processes = given.get("processes", 1)
    if processes < 1:
        raise UsageError(f"Got {processes} processes, expected 1 or more.", hint="Give --nproc 1.")
    if "threads" not in given:
        threads = max(1, threads // processes)
    return Settings(**{**given, "threads": threads})


def _require_shared(trainer: Trainer, mode: str, processes: int) -> None:
    """Raise UsageError for several processes in a mode that they cannot share."""
    if processes > 1 and mode not in trainer.shared:
        raise UsageError(
            f"Got {processes} processes for {trainer.framework}:{mode}, which trains in one.",
            hint=f"Leave --nproc out, or give --framework torch --mode {SHARED}.",
        )


def _recipe(
    own: Mapping[str, Any], augmentation: tuple[str, ...], given: Mapping[str, Any]
) -> Recipe:
    """Return the family's recipe with the given values in place of its own.

    With another optimizer, the learning rate is by default the usual one of that optimizer, and the
    momentum 0.
    """
    given = {name: value for name, value in given.items() if value is not None}
    usual = dict(own)
    optimizer = given.get("optimizer")
    if optimizer in RATES and optimizer != usual.get("optimizer", "sgd"):
        usual |= {"learning_rate": RATES[optimizer], "momentum": 0.0}
    return Recipe(
        **{"epochs": EPOCHS, "seed": 0, "augmentation": augmentation, **usual, **given},
    )


def _require_known(recipe: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(Recipe)]
    for name in recipe:
        if name not in known:
            raise unknown_name("value of a recipe", name, known)


def _run(session: TrainingSession, plan: Plan, target: Path, before: Resumed | None) -> Checkpoint:
    """Train, with `target` always the complete checkpoint of the last finished epoch."""
    finished: list[int] = []
    done = before.history if before else ()
    if before is not None:
        session.restore(before.state)

    def keep(trained: Trained) -> None:
        directory = replaced_directory(target) if finished else new_directory(target)
        with directory as partial:
            _save(partial, plan, trained, session, before)
        finished.append(len(trained.history))

    try:
        run(session, plan.job, plan.splits.test, plan.progress, keep=keep, done=done)
    except ToolkitError as error:
        if not finished:
            raise
        raise _with_what_was_kept(error, target, finished[-1]) from error
    return Checkpoint.load(target)


def _with_what_was_kept(error: ToolkitError, target: Path, epoch: int) -> ToolkitError:
    kind: Callable[..., ToolkitError] = type(error)
    if not isinstance(error, CheckFailedError):
        kind = ToolkitError
    return kind(
        f"{error.problem}\nKept: {target} holds the model after epoch {epoch}; --resume goes on "
        "from there.",
        hint=error.hint,
    )


def _save(
    directory: Path,
    plan: Plan,
    trained: Trained,
    session: TrainingSession,
    before: Resumed | None,
) -> None:
    spec: ModelSpec = plan.job.spec
    assert spec.task is not None
    history = trained.history
    if plan.program is not None:
        write_atomically(directory / PROGRAM, plan.program)
    Checkpoint.save(
        directory,
        spec=spec,
        weights=trained.weights,
        seed=plan.job.recipe.seed,
        epoch=len(history),
        metrics=metrics_of(spec.task.kind, history[-1]) if history else {},
        resume=trained.state,
        training={
            **plan.training(),
            "provenance": session.provenance(),
            "history": encode(history),
            "prepare_ns": trained.prepare_ns,
            "inference": {
                "rows": len(plan.splits.test),
                "batch": EVALUATION_BATCH,
                "ns": history[-1].test_ns if history else None,
            },
            "interrupted": trained.interrupted,
            "resumed_from": before and before.checkpoint.digest,
        },
    )

"""Training run: the loop over epochs, with evaluation and a record of each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypedDict

import numpy as np
from msgspec import Meta

from toolkit.core.codec import Count, Size
from toolkit.core.errors import CheckFailedError
from toolkit.core.interrupts import FirstSignalOnly
from toolkit.core.memory import peak_rss_bytes, reset_peak
from toolkit.core.progress import Progress
from toolkit.core.specs import TaskKind
from toolkit.data.base import Split
from toolkit.data.scores import LOSSES, METRICS, loss_of, metric_of
from toolkit.trainers.base import Epoch, EpochRun, Job, TrainingSession
from toolkit.trainers.recipe import Recipe

EVALUATION_BATCH = 256
Clock = Callable[[], int]


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """Result of one epoch. Durations are in ns.

    `train_ns` is the duration of training alone, `test_ns` that of computing the test outputs.
    `train_loss` and `train_metric` are means over all samples, each from before the update of its
    batch. A metric is the accuracy for classification, the mean absolute error for regression.
    `learning_rate` is that of the first step. `peak_bytes` is the peak resident size of this
    process during training, or since its start where the system cannot reset the peak. In a file,
    a `test_loss` or `test_metric` that was not finite is None.
    """

    train_ns: Size
    train_loss: float
    train_metric: float
    samples_per_s: float
    learning_rate: float
    peak_bytes: Size
    test_ns: Size
    test_loss: float | None
    test_metric: float | None


@dataclass(frozen=True, kw_only=True)
class Inference:
    """Duration of computing the outputs of `rows` test samples, None before the first epoch."""

    rows: Count
    ns: Count | None


class RowCounts(TypedDict):
    train: Count
    test: Count


@dataclass(frozen=True, kw_only=True)
class TrainingLog:
    """Part of a checkpoint's `training` that reports show."""

    framework: str
    mode: str
    rows: RowCounts
    history: Annotated[tuple[EpochRecord, ...], Meta(min_length=1)]
    prepare_ns: Size | None
    inference: Inference | None = None


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Weights, state and history after the last finished epoch.

    `prepare_ns` is the duration of compilation and warm-up, None before they are done.
    `interrupted` is False only after the last epoch of the recipe.
    """

    weights: Mapping[str, np.ndarray]
    state: Mapping[str, np.ndarray]
    history: tuple[EpochRecord, ...]
    prepare_ns: int | None
    interrupted: bool


Keep = Callable[[Trained], None]


def epoch_of(recipe: Recipe, number: int, rows: int) -> Epoch:
    """Return the batches of epoch `number` over `rows` samples; equal arguments give equal ones."""
    steps = -(-rows // recipe.batch)
    return Epoch(
        number=number,
        seed=recipe.seed,
        batch=recipe.batch,
        order=np.random.default_rng([recipe.seed, number, 0]).permutation(rows),
        rates=recipe.rates(number, steps),
        augmentation=recipe.augmentation,
    )


def run(
    session: TrainingSession,
    job: Job,
    test: Split,
    progress: Progress,
    *,
    keep: Keep = lambda trained: None,
    done: Sequence[EpochRecord] = (),
    clock: Clock = time.perf_counter_ns,
) -> Trained:
    """Train for the epochs of the recipe that are not in `done`, from the session's state.

    `keep` is called before the first epoch and after each one, with the result so far; signals wait
    until it returns. A KeyboardInterrupt, which the command line also raises for SIGTERM and
    SIGHUP, ends training; later signals are ignored. Returns the result of the last finished epoch.
    Raises CheckFailedError if a loss or a weight is not finite.
    """
    recipe = job.recipe
    kept = Trained(
        weights=session.weights(),
        state=session.state(),
        history=tuple(done),
        prepare_ns=None,
        interrupted=len(done) < recipe.epochs,
    )
    with FirstSignalOnly() as signals:
        try:
            with signals.calm:
                keep(kept)
            prepare_ns = _prepare(session, epoch_of(recipe, len(done), len(job.train)), test, clock)
            for number in range(len(done), recipe.epochs):
                epoch = epoch_of(recipe, number, len(job.train))
                record = _run_epoch(session, epoch, test, job, clock)
                with signals.calm:
                    kept = Trained(
                        weights=session.weights(),
                        state=session.state(),
                        history=(*kept.history, record),
                        prepare_ns=prepare_ns,
                        interrupted=number + 1 < recipe.epochs,
                    )
                    _require_finite(kept.weights, number, epoch.steps)
                    keep(kept)
                progress.update(
                    f"train {job.spec.name}", number + 1, recipe.epochs, _told(job, record)
                )
        except KeyboardInterrupt:
            pass
    return kept


def _prepare(session: TrainingSession, epoch: Epoch, test: Split, clock: Clock) -> int:
    began = clock()
    session.prepare(epoch)
    predict(session, test)
    return clock() - began


def _run_epoch(
    session: TrainingSession, epoch: Epoch, test: Split, job: Job, clock: Clock
) -> EpochRecord:
    kind = _kind(job)
    reset_peak()
    began = clock()
    ran = session.run_epoch(epoch)
    trained = clock()
    peak = peak_rss_bytes()
    _require_finite_losses(ran, epoch)
    tested_from = clock()
    outputs = predict(session, test)
    tested = clock()
    sizes = np.diff([*range(0, len(job.train), epoch.batch), len(job.train)])
    return EpochRecord(
        train_ns=trained - began,
        train_loss=float(np.average(ran.losses, weights=sizes)),
        train_metric=ran.metric,
        samples_per_s=len(job.train) / ((trained - began) / 1e9),
        learning_rate=float(epoch.rates[0]),
        peak_bytes=peak,
        test_ns=tested - tested_from,
        test_loss=loss_of(kind, outputs, test.targets),
        test_metric=metric_of(kind, outputs, test.targets),
    )


def _require_finite_losses(ran: EpochRun, epoch: Epoch) -> None:
    (wrong,) = np.nonzero(~np.isfinite(ran.losses))
    if len(wrong):
        step = int(wrong[0])
        raise _diverged(f"the loss became {ran.losses[step]}", epoch.number, step, epoch.steps)


def _require_finite(weights: Mapping[str, np.ndarray], number: int, steps: int) -> None:
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise _diverged(f"weight {name} is no finite number", number, steps - 1, steps)


def _diverged(what: str, number: int, step: int, steps: int) -> CheckFailedError:
    return CheckFailedError(
        f"Training stopped in epoch {number + 1}, step {step + 1} of {steps}: {what}.",
        hint="Give a smaller --lr, or look for values in the data that are out of all proportion.",
    )


def predict(session: TrainingSession, split: Split, batch: int = EVALUATION_BATCH) -> np.ndarray:
    """Return the outputs [N, outputs] of all samples, computed in batches."""
    starts: Sequence[int] = range(0, len(split), batch)
    return np.concatenate([session.predict(split.inputs[at : at + batch]) for at in starts])


def metrics_of(kind: TaskKind, record: EpochRecord) -> dict[str, float | None]:
    """Return the test loss and metric by name: `test_loss` and `test_accuracy`, or MSE and MAE."""
    loss = "loss" if kind is TaskKind.CLASSIFICATION else LOSSES[kind]
    return {f"test_{loss}": record.test_loss, f"test_{METRICS[kind]}": record.test_metric}


def _kind(job: Job) -> TaskKind:
    assert job.spec.task is not None
    return job.spec.task.kind


def _told(job: Job, record: EpochRecord) -> str:
    """Return a one-line summary of an epoch."""
    kind = _kind(job)
    loss, metric = (
        math.nan if value is None else value for value in (record.test_loss, record.test_metric)
    )
    shown = f"{metric:.2%}" if kind is TaskKind.CLASSIFICATION else f"{metric:.4f}"
    return (
        f"loss {record.train_loss:.4f}, test loss {loss:.4f}, "
        f"test {METRICS[kind]} {shown}, {record.train_ns / 1e9:.3g} s, "
        f"{record.samples_per_s:,.0f} samples/s"
    )

"""A training run: epochs over a session, and what each came to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from toolkit.core.documents import Json
from toolkit.core.progress import Progress
from toolkit.core.specs import TaskKind
from toolkit.data.base import Split
from toolkit.training.base import Epoch, Job, TrainingSession
from toolkit.training.recipe import METRICS, Recipe, loss_of, metric_of

EVALUATION_BATCH = 256
Clock = Callable[[], int]


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch. `train_ns` is training alone, `test_ns` the outputs of the test rows alone.

    The metric is accuracy for classes, the mean absolute error for values.
    """

    train_ns: int
    train_loss: float
    train_metric: float
    learning_rate: float
    test_ns: int
    test_loss: float
    test_metric: float

    def to_json(self) -> Json:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The weights after the last finished epoch, and what each epoch came to.

    `prepare_ns` is compiling and warming up, before the first epoch. `interrupted` when Ctrl-C
    ended the run before the recipe's last epoch.
    """

    weights: Mapping[str, np.ndarray]
    state: Mapping[str, np.ndarray]
    history: tuple[EpochRecord, ...]
    prepare_ns: int
    interrupted: bool


def epoch_of(recipe: Recipe, number: int, rows: int) -> Epoch:
    """The batches of an epoch: they depend on the recipe and the number alone."""
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
    clock: Clock = time.perf_counter_ns,
) -> Trained:
    """Trains for the recipe's epochs.

    On Ctrl-C after at least one epoch, gives what the finished epochs came to.
    """
    recipe = job.recipe
    assert job.spec.task is not None
    kind = job.spec.task.kind
    history: list[EpochRecord] = []
    began = clock()
    session.prepare(epoch_of(recipe, 0, len(job.train)))
    prepare_ns = clock() - began
    weights = session.weights()
    state = session.state()
    try:
        for number in range(recipe.epochs):
            record = _run_epoch(
                session, epoch_of(recipe, number, len(job.train)), kind, test, job, clock
            )
            # Weights first, since a history without weights would be a lie.
            weights, state = session.weights(), session.state()
            history.append(record)
            rate = len(job.train) / (record.train_ns / 1e9)
            progress.update(
                f"train {job.spec.name}",
                number + 1,
                recipe.epochs,
                f"loss {record.train_loss:.4f}, test loss {record.test_loss:.4f}, "
                f"test {METRICS[kind]} {_shown(kind, record.test_metric)}, {rate:,.0f} samples/s",
            )
    except KeyboardInterrupt:
        if not history:
            raise
    return Trained(
        weights=weights,
        state=state,
        history=tuple(history),
        prepare_ns=prepare_ns,
        interrupted=len(history) < recipe.epochs,
    )


def _run_epoch(
    session: TrainingSession,
    epoch: Epoch,
    kind: TaskKind,
    test: Split,
    job: Job,
    clock: Clock,
) -> EpochRecord:
    began = clock()
    ran = session.run_epoch(epoch)
    trained = clock()
    outputs = predict(session, test)
    tested = clock()
    sizes = np.diff([*range(0, len(job.train), epoch.batch), len(job.train)])
    return EpochRecord(
        train_ns=trained - began,
        train_loss=float(np.average(ran.losses, weights=sizes)),
        train_metric=ran.metric,
        learning_rate=float(epoch.rates[0]),
        test_ns=tested - trained,
        test_loss=loss_of(kind, outputs, test.targets),
        test_metric=metric_of(kind, outputs, test.targets),
    )


def predict(session: TrainingSession, split: Split, batch: int = EVALUATION_BATCH) -> np.ndarray:
    """The outputs for every row, in batches."""
    starts: Sequence[int] = range(0, len(split), batch)
    return np.concatenate([session.predict(split.inputs[at : at + batch]) for at in starts])


def _shown(kind: TaskKind, metric: float) -> str:
    return f"{metric:.2%}" if kind is TaskKind.CLASSIFICATION else f"{metric:.4f}"

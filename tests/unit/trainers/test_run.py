"""The driver of epochs, over a session that the test controls."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from toolkit.core.errors import CheckFailedError
from toolkit.core.progress import Silent
from toolkit.core.specs import ModelSpec, Signature, Task, TaskKind
from toolkit.data.base import Split
from toolkit.trainers.base import Epoch, EpochRun, Job, Settings, TrainingSession
from toolkit.trainers.recipe import Recipe
from toolkit.trainers.run import Trained, metrics_of, run

ROWS = Split(inputs=np.zeros((6, 1), np.float32), targets=np.ones((6, 1), np.float32))


class Counting(TrainingSession):
    """Its weight counts the epochs; `during` is called in each."""

    def __init__(self, during: Callable[[int], float] = lambda number: 1.0) -> None:
        self.count = np.zeros(1, np.float32)
        self._during = during

    def run_epoch(self, epoch: Epoch) -> EpochRun:
        self.count = self.count + 1
        losses = np.ones(epoch.steps, np.float32)
        losses[-1] = self._during(int(self.count[0]))
        return EpochRun(losses=losses, metric=0.5)

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return np.full((len(inputs), 1), 3.0, np.float32)

    def weights(self) -> dict[str, np.ndarray]:
        return {"count": self.count.copy()}

    def state(self) -> dict[str, np.ndarray]:
        return self.weights()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.count = state["count"].copy()

    def provenance(self) -> dict[str, Any]:
        return {}


def job(epochs: int = 3) -> Job:
    task = Task(kind=TaskKind.REGRESSION, input_shape=(1,), outputs=1)
    return Job(
        spec=ModelSpec(
            name="m",
            family="m",
            framework="f",
            signature=Signature(inputs=(), outputs=()),
            task=task,
        ),
        mode="m",
        recipe=Recipe(epochs=epochs, seed=0, batch=4, learning_rate=0.5, schedule="step:2:0.1"),
        train=ROWS,
        weights={},
        settings=Settings(threads=1),
    )


def ticks() -> Callable[[], int]:
    clock: Iterator[int] = iter(range(0, 10**6, 10))
    return lambda: next(clock)


def test_each_epoch_is_recorded_and_kept() -> None:
    kept: list[Trained] = []
    trained = run(Counting(), job(), ROWS, Silent(), keep=kept.append, clock=ticks())
    assert [len(each.history) for each in kept] == [0, 1, 2, 3]
    assert [float(each.weights["count"][0]) for each in kept] == [0, 1, 2, 3]
    assert [each.interrupted for each in kept] == [True, True, True, False]
    last = trained.history[-1]
    assert (trained.prepare_ns, last.train_ns, last.test_ns) == (10, 10, 10)
    assert last.samples_per_s == pytest.approx(6 / 10e-9)
    assert [record.learning_rate for record in trained.history] == [0.5, 0.5, 0.05]
    assert last.peak_bytes > 10**6
    assert metrics_of(TaskKind.REGRESSION, last) == {"test_mse": 4.0, "test_mae": 2.0}


def test_a_run_goes_on_after_what_is_done() -> None:
    first = run(Counting(), job(2), ROWS, Silent())
    session = Counting()
    session.restore(first.state)
    trained = run(session, job(3), ROWS, Silent(), done=first.history)
    assert float(trained.weights["count"][0]) == 3
    assert trained.history[:2] == first.history


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(bad: float) -> None:
    kept: list[Trained] = []
    session = Counting(lambda number: bad if number == 3 else 1.0)
    with pytest.raises(CheckFailedError, match=f"epoch 3, step 2 of 2: the loss became {bad}"):
        run(session, job(5), ROWS, Silent(), keep=kept.append)
    assert len(kept[-1].history) == 2


def test_weights_that_are_no_number_are_not_kept() -> None:
    kept: list[Trained] = []
    session = Counting()

    def spoil(number: int) -> float:
        session.count = session.count * (np.inf if number == 2 else 1)
        return 1.0

    session._during = spoil
    with pytest.raises(CheckFailedError, match="epoch 2, step 2 of 2: weight count"):
        run(session, job(), ROWS, Silent(), keep=kept.append)
    assert len(kept[-1].history) == 1


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as in a terminal: what started these tests may have it ignored, and a library that an
    earlier test imported may have it end the process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_ctrl_c_in_an_epoch_ends_at_the_one_before(epoch: int) -> None:
    before = signal.getsignal(signal.SIGINT)
    kept: list[Trained] = []

    def interrupt(count: int) -> float:
        if count == epoch and len(kept) == epoch:
            os.kill(os.getpid(), signal.SIGINT)
        return 1.0

    trained = run(Counting(interrupt), job(), ROWS, Silent(), keep=kept.append)
    assert trained.interrupted
    assert trained is kept[-1]
    assert len(trained.history) == epoch - 1
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_an_epoch_is_kept_waits_and_a_second_changes_nothing() -> None:
    kept: list[Trained] = []

    def keep(trained: Trained) -> None:
        if len(trained.history) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        kept.append(trained)

    trained = run(Counting(), job(5), ROWS, Silent(), keep=keep)
    assert len(kept) == 3
    assert trained is kept[-1]
    assert len(trained.history) == 2

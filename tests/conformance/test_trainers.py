"""What every trainer must do in every mode, asked of all alike.

A new entry in the registry, and a new mode, are picked up by themselves. A trainer that cannot be
had on the machine of the tests is skipped with its reason, unless REQUIRED names it. One session a
mode serves all tests, since opening it may mean to compile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from models import FAMILIES
from models.initial import fresh_weights
from toolkit.core.errors import UnavailableError, UsageError
from toolkit.core.specs import Task, TaskKind
from toolkit.data.base import Split
from toolkit.trainers import TRAINERS
from toolkit.trainers.base import Epoch, Job, Settings, Trainer, TrainingSession
from toolkit.trainers.recipe import Recipe
from toolkit.trainers.run import epoch_of, predict

REQUIRED = {"torch"}
THREADS = os.cpu_count() or 1  # what TensorFlow and JAX take for a whole process, once
ROWS, BATCH = 44, 8  # five whole batches and a remainder of four
TASK = Task(kind=TaskKind.REGRESSION, input_shape=(3,), outputs=1)
RECIPE = Recipe(
    epochs=8,
    seed=3,
    batch=BATCH,
    learning_rate=0.05,
    optimizer="sgd",
    momentum=0.9,
    weight_decay=1e-3,
    schedule="cosine",
)


def rows() -> Split:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((ROWS, 3)).astype(np.float32)
    return Split(inputs=inputs, targets=inputs[:, :1] - 2 * inputs[:, 1:2])


def trainer_of(name: str) -> Trainer:
    try:
        trainer = TRAINERS.create(name)
        found = trainer.probe()
        missing = None if found.ok else found.reason
    except UnavailableError as error:
        missing = error.problem
    if missing:
        assert name not in REQUIRED, f"{name} is required here: {missing}"
        pytest.skip(missing)
    return trainer


def modes() -> list[tuple[str, str]]:
    found = []
    for name in TRAINERS.names():
        try:
            found += [(name, mode) for mode in TRAINERS.create(name).modes]
        except UnavailableError:
            found.append((name, ""))
    return found


def job_of(trainer: Trainer, mode: str, recipe: Recipe = RECIPE) -> Job:
    family = FAMILIES.create("mlp")
    spec = family.spec(trainer.framework, task=TASK, settings={"hidden": 4})
    return Job(
        spec=spec,
        mode=mode,
        recipe=recipe,
        train=rows(),
        weights=fresh_weights(trainer.shapes(spec), recipe.seed),
        settings=Settings(threads=THREADS),
    )


@pytest.fixture(scope="module", params=modes(), ids=":".join)
def opened(request: pytest.FixtureRequest) -> Iterator[tuple[Trainer, Job, TrainingSession]]:
    name, mode = request.param
    trainer = trainer_of(name)
    job = job_of(trainer, mode)
    with trainer.open(job) as session:
        session.start = session.state()
        yield trainer, job, session


@pytest.fixture
def session(opened: tuple[Trainer, Job, TrainingSession]) -> TrainingSession:
    """At the start of training, whatever a test before did."""
    _, _, session = opened
    session.restore(session.start)
    return session


def epoch(number: int = 0) -> Epoch:
    return epoch_of(RECIPE, number, ROWS)


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def by_hand(weights: dict[str, np.ndarray], epoch: Epoch) -> tuple[dict[str, np.ndarray], list]:
    """One epoch of the perceptron by SGD with momentum, in float64: weights and losses."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    v = {name: np.zeros_like(array) for name, array in w.items()}
    losses = []
    for batch, rate in zip(epoch.batches(rows()), epoch.rates, strict=True):
        x, y = batch.inputs.astype(np.float64), batch.targets
        hidden = np.maximum(x @ w["fc1.weight"].T + w["fc1.bias"], 0)
        error = hidden @ w["fc2.weight"].T + w["fc2.bias"] - y
        losses.append((error**2).mean())
        out = 2 * error / error.size
        back = (out @ w["fc2.weight"]) * (hidden > 0)
        slopes = {
            "fc2.weight": out.T @ hidden,
            "fc2.bias": out.sum(0),
            "fc1.weight": back.T @ x,
            "fc1.bias": back.sum(0),
        }
        for name, slope in slopes.items():
            v[name] = RECIPE.momentum * v[name] + slope + RECIPE.weight_decay * w[name]
            w[name] = w[name] - rate * v[name]
    return w, losses


def test_required_trainers_are_registered() -> None:
    assert set(TRAINERS.names()) >= REQUIRED


def test_it_starts_from_the_weights_it_is_given(
    session: TrainingSession, opened: tuple[Trainer, Job, TrainingSession]
) -> None:
    _, job, _ = opened
    assert same(session.weights(), dict(job.weights))


def test_every_step_is_the_one_that_is_written_down(session: TrainingSession) -> None:
    """Order, remainder, rates, momentum and decay: a wrong one shows in losses and weights."""
    expected, losses = by_hand(session.weights(), epoch())
    ran = session.run_epoch(epoch())
    assert ran.losses.dtype == np.float32
    np.testing.assert_allclose(ran.losses, losses, rtol=1e-4)
    found = session.weights()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


def test_other_rates_and_another_order_need_no_new_session(session: TrainingSession) -> None:
    other = replace(epoch(), order=epoch().order[::-1].copy(), rates=epoch().rates / 3)
    expected, losses = by_hand(session.weights(), other)
    np.testing.assert_allclose(session.run_epoch(other).losses, losses, rtol=1e-4)
    for name, array in session.weights().items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5)


def test_it_learns(session: TrainingSession) -> None:
    runs = [session.run_epoch(epoch(number)) for number in range(RECIPE.epochs)]
    assert runs[-1].losses.mean() < runs[0].losses.mean() / 4
    assert runs[-1].metric < runs[0].metric / 2


def test_a_state_brings_back_every_bit(session: TrainingSession) -> None:
    session.run_epoch(epoch(0))
    state = session.state()
    kept = {name: array.copy() for name, array in state.items()}
    first = session.run_epoch(epoch(1))
    weights = session.weights()
    assert same(state, kept), "a state is a copy"
    session.restore(state)
    again = session.run_epoch(epoch(1))
    np.testing.assert_array_equal(first.losses, again.losses)
    assert first.metric == again.metric
    assert same(weights, session.weights())


def test_preparing_changes_nothing(session: TrainingSession) -> None:
    before = session.state()
    session.prepare(epoch(0))
    assert same(before, session.state())


def test_outputs_are_those_of_the_weights(session: TrainingSession) -> None:
    session.run_epoch(epoch(0))
    weights = session.weights()
    hidden = rows().inputs @ weights["fc1.weight"].T + weights["fc1.bias"]
    expected = np.maximum(hidden, 0) @ weights["fc2.weight"].T + weights["fc2.bias"]
    found = predict(session, rows(), batch=32)
    assert found.dtype == np.float32
    assert found.shape == (ROWS, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert same(weights, session.weights()), "predicting changes nothing"


def test_what_it_gives_is_the_caller_s(session: TrainingSession) -> None:
    for array in session.weights().values():
        array[...] = 0
    assert any(array.any() for array in session.weights().values())


def test_it_says_what_runs(session: TrainingSession) -> None:
    found = session.provenance()
    assert found["version"]
    assert found["threads"] in (THREADS, None)  # None where another test had started JAX before


def test_wrong_modes_and_devices_are_refused(
    opened: tuple[Trainer, Job, TrainingSession],
) -> None:
    trainer, job, _ = opened
    with pytest.raises(UsageError):
        trainer.open(replace(job, mode="nosuch"))
    with pytest.raises((UsageError, UnavailableError)):
        trainer.open(replace(job, settings=replace(job.settings, device="nosuch")))

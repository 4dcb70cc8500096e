"""Frameworks step by step: the same start and the same batches give the same losses."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from models import he_resnet
from tests.unit.trainers.jobs import images, job, losses, numbers, opened
from toolkit.data import load_splits
from toolkit.data.base import Split
from toolkit.trainers import TRAINERS
from toolkit.trainers.base import Job

STEPS = 20
MODES = [(name, mode) for name in ("tensorflow", "jax") for mode in TRAINERS.create(name).modes]
TOLERANCE = 2.0**-20
"""How far two losses may be apart, relatively, at any of the steps: 16 roundings of float32.

A loss and its gradients are sums, each library has an order of its own for them, and what one
step rounds differently the next starts from. Found: at most 4 roundings, without growth over the 20
steps; the nearest wrong run here is 5 times beyond the tolerance.
"""


def mlp(framework: str, mode: str, **changed: object) -> Job:
    """20 steps, the last of each epoch smaller."""
    recipe = {
        "epochs": 2, "batch": 16, "optimizer": "adam", "learning_rate": 0.001, "schedule": "cosine",
        **changed,
    }  # fmt: skip
    return job(framework, mode, numbers(155), **recipe)


@functools.cache
def digits() -> Split:
    train = load_splits("digits").train
    return Split(inputs=train.inputs[:320], targets=train.targets[:320])


def lenet(framework: str, mode: str, **changed: object) -> Job:
    recipe = {
        "epochs": 1, "batch": 16, "momentum": 0.9, "weight_decay": 5e-4,
        **changed,
    }  # fmt: skip
    return job(framework, mode, digits(), model="lenet", **recipe)


@functools.cache
def of_torch(model: str) -> np.ndarray:
    return trained({"mlp": mlp, "lenet": lenet}[model]("torch", "eager"))


def trained(job: Job) -> np.ndarray:
    with opened(job) as session:
        found = losses(session, job)
    assert found.shape == (STEPS,)
    assert found.dtype == np.float32
    return found


def apart(found: np.ndarray, reference: np.ndarray) -> float:
    """The largest relative difference, in units of the tolerance."""
    exact = reference.astype(np.float64)
    return float((np.abs(found - exact) / np.abs(exact)).max() / TOLERANCE)


@pytest.mark.parametrize(("framework", "mode"), MODES)
def test_mlp_has_the_losses_of_torch_at_every_step(framework: str, mode: str):
    assert apart(trained(mlp(framework, mode)), of_torch("mlp")) <= 1


@pytest.mark.parametrize(("framework", "mode"), [("tensorflow", "function"), ("jax", "jit")])
def test_lenet_has_the_losses_of_torch_at_every_step(framework: str, mode: str):
    assert apart(trained(lenet(framework, mode)), of_torch("lenet")) <= 1


@pytest.mark.parametrize(("framework", "mode"), [("tensorflow", "function"), ("jax", "jit")])
def test_batch_norm_moves_as_in_torch(framework: str, mode: str, monkeypatch: pytest.MonkeyPatch):
    """A ResNet of 8 layers, three steps: the losses, and all that was learned or counted."""
    monkeypatch.setitem(he_resnet.BLOCKS, "resnet20", 1)
    ends = []
    for name, loop in (("torch", "eager"), (framework, mode)):
        training = job(name, loop, images(10), model="resnet20", epochs=1, momentum=0.9)
        with opened(training) as session:
            found = losses(session, training)
            ends.append((found, session.weights(), session.predict(training.train.inputs)))
    (reference, theirs, outputs), (found, ours, predicted) = ends
    assert apart(found, reference) <= 4  # 8 layers, and roots of variances
    assert ours.keys() == theirs.keys()
    for name in theirs:
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5, err_msg=name)
    np.testing.assert_allclose(predicted, outputs, atol=1e-4)


@pytest.mark.parametrize(
    "changed",
    [
        {"optimizer": "rmsprop"},
        {"weight_decay": 1e-4},
        {"schedule": "constant"},
        {"learning_rate": 0.001001},
    ],
    ids=str,
)
def test_another_formula_is_told_apart(changed: dict):
    """The tolerance is worth something: what is nearly the same run is beyond it."""
    assert apart(trained(mlp("jax", "scan", **changed)), of_torch("mlp")) > 4


def test_a_small_batch_comes_apart_from_itself():
    """A ResNet in batches of four, its weights started half a unit in the last place away: why its
    losses prove nothing after so many steps, and those of the models above do."""
    first = job("torch", "eager", images(80), model="resnet20", epochs=1, momentum=0.9)
    rng = np.random.default_rng(0)
    moved = {
        name: (array * (1 + rng.choice([-1, 1], array.shape) * 2.0**-24)).astype(array.dtype)
        if array.ndim
        else array
        for name, array in first.weights.items()
    }
    expected = trained(first)
    found = trained(dataclasses.replace(first, weights=moved))
    assert apart(found[:1], expected[:1]) <= 1
    assert apart(found, expected) > 1000


def test_another_order_of_the_rows_is_told_apart():
    same = mlp("jax", "scan")
    other = dataclasses.replace(same, recipe=dataclasses.replace(same.recipe, seed=2))
    assert apart(trained(other), of_torch("mlp")) > 1000


def test_another_start_is_told_apart():
    same, other = mlp("jax", "scan"), mlp("jax", "scan", seed=2)
    started = dataclasses.replace(same, weights=other.weights)
    assert apart(trained(started), of_torch("mlp")) > 1000

"""What the loops of TensorFlow and JAX have in common."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from tests.unit.trainers.jobs import job, losses, numbers, opened
from toolkit.core.errors import IntegrityError, UnavailableError, UnknownNameError
from toolkit.trainers import TRAINERS
from toolkit.trainers.base import Job
from toolkit.trainers.run import epoch_of

MODES = [(name, mode) for name in ("tensorflow", "jax") for mode in TRAINERS.create(name).modes]
QUICK = [("tensorflow", "eager"), ("jax", "jit")]
OPTIMIZERS = {
    "sgd": {"momentum": 0.9, "weight_decay": 0.01},
    "adam": {"weight_decay": 0.01},
    "rmsprop": {"momentum": 0.5, "learning_rate": 0.001},
}


def in_float64(job: Job) -> np.ndarray:
    """The losses of the job's steps by autograd and torch.optim in float64."""
    plan = job.recipe
    module = models.build(job.spec, "torch").double()
    models.builder(job.spec, "torch").restore(
        module, {name: array.astype(np.float64) for name, array in job.weights.items()}
    )
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}
    own = {} if plan.optimizer == "adam" else {"momentum": plan.momentum}
    optimizer = kind[plan.optimizer](
        module.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay, **own
    )
    found = []
    for number in range(plan.epochs):
        epoch = epoch_of(plan, number, len(job.train))
        for batch, rate in zip(epoch.batches(job.train), epoch.rates, strict=True):
            optimizer.param_groups[0]["lr"] = float(rate)
            optimizer.zero_grad()
            outputs = module(torch.from_numpy(batch.inputs).double())
            loss = torch.nn.functional.mse_loss(outputs, torch.from_numpy(batch.targets).double())
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    return np.array(found)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("framework", "mode"), MODES)
def test_each_optimizer_in_each_mode(framework: str, mode: str, optimizer: str):
    """12 steps, every third with a smaller batch, each at another learning rate."""
    training = job(
        framework, mode, numbers(10), epochs=4, optimizer=optimizer, schedule="cosine",
        settings={"hidden": 4}, **OPTIMIZERS[optimizer],
    )  # fmt: skip
    with opened(training) as session:
        found = losses(session, training)
    np.testing.assert_allclose(found, in_float64(training), rtol=1e-5)


@pytest.mark.parametrize(("framework", "mode"), MODES)
def test_a_state_put_back_goes_on_bit_for_bit(framework: str, mode: str):
    training = job(framework, mode, numbers(10), optimizer="adam", settings={"hidden": 4})
    epochs = [epoch_of(training.recipe, number, 10) for number in range(3)]
    with opened(training) as session:
        before = session.state()
        session.prepare(epochs[0])
        same(session.state(), before)
        session.run_epoch(epochs[0])
        kept = session.state()
        ran = [session.run_epoch(epoch) for epoch in epochs[1:]]
        end = session.state()
    with opened(training) as session:
        session.restore(kept)
        again = [session.run_epoch(epoch) for epoch in epochs[1:]]
        same(session.state(), end)
    for one, other in zip(ran, again, strict=True):
        assert one.losses.tobytes() == other.losses.tobytes()
        assert one.metric == other.metric


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize(("framework", "mode"), QUICK)
def test_the_metric_is_over_all_rows_before_each_update(framework: str, mode: str):
    training = job(framework, mode, numbers(10), batch=10, settings={"hidden": 4})
    with opened(training) as session:
        outputs = session.predict(training.train.inputs)
        ran = session.run_epoch(epoch_of(training.recipe, 0, 10))
    assert ran.metric == pytest.approx(np.abs(outputs - training.train.targets).mean(), rel=1e-6)


@pytest.mark.parametrize(("framework", "mode"), QUICK)
def test_a_smaller_batch_has_the_same_outputs(framework: str, mode: str):
    training = job(framework, mode, numbers(10), settings={"hidden": 4})
    with opened(training) as session:
        outputs = session.predict(training.train.inputs)
        assert outputs.shape == (10, 1)
        few = session.predict(training.train.inputs[:3])
    np.testing.assert_allclose(few, outputs[:3], rtol=1e-6)


@pytest.mark.parametrize("framework", ["tensorflow", "jax"])
def test_a_mode_or_a_device_that_is_none(framework: str):
    training = job(framework, next(iter(TRAINERS.create(framework).modes)), numbers(4))
    with pytest.raises(UnknownNameError, match="training mode"):
        opened(dataclasses.replace(training, mode="abacus"))
    for device, error in (("tpu", UnknownNameError), ("cuda", UnavailableError)):
        settings = dataclasses.replace(training.settings, device=device)
        with pytest.raises(error):
            opened(dataclasses.replace(training, settings=settings))


@pytest.mark.parametrize(("framework", "mode"), QUICK)
def test_threads_are_those_asked_for_or_refused(framework: str, mode: str):
    """In a process of its own, since they are given once."""
    lines = [
        "from tests.unit.trainers import jobs",
        "from toolkit.core.errors import UnavailableError",
        "jobs.THREADS += 1",
        f"training = jobs.job({framework!r}, {mode!r}, jobs.numbers(4))",
        "print(jobs.opened(training).provenance()['threads'] == jobs.THREADS)",
        "jobs.THREADS += 1",
        "try:",
        f"    jobs.job({framework!r}, {mode!r}, jobs.numbers(4))",
        "except UnavailableError as error:",
        "    print('cannot be changed' in str(error))",
    ]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["True", "True"], done.stderr


@pytest.mark.parametrize(("framework", "mode"), QUICK)
def test_weights_of_another_model_are_refused(framework: str, mode: str):
    training = job(framework, mode, numbers(4))
    other = job(framework, mode, numbers(4), settings={"hidden": 3})
    with pytest.raises(IntegrityError):
        opened(dataclasses.replace(training, weights=other.weights))

"""MXNet, in its own interpreter: its formulas, and step by step beside torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import FAMILIES
from tests.mxnet_env import mxnet_python
from toolkit.core.errors import UnavailableError
from toolkit.core.learning import Learning
from toolkit.core.measurement import Scope
from toolkit.core.session import Provenance
from toolkit.core.specs import Task, TaskKind
from toolkit.data.base import Split
from toolkit.measuring.workers.client import WorkerProcess
from toolkit.measuring.workers.training_client import MODULE, TrainingProbe, write_split
from toolkit.trainers import TRAINERS
from toolkit.trainers.base import Settings
from toolkit.trainers.recipe import Recipe

CHECKS = Path(__file__).with_name("mxnet_checks.py")
# Of float32 through 40 steps of a perceptron; observed 3e-5 with adam, which divides small
# gradients by their own size, 5e-7 with sgd. A wrong constant shows above 1e-3.
ROUNDING = 1e-4


@pytest.fixture(scope="module")
def checked() -> Any:
    """What the checks found in MXNet's interpreter."""
    done = subprocess.run(
        [mxnet_python(), CHECKS], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_optimizers_are_those_of_the_recipe(checked: Any) -> None:
    assert len(checked["optimizers"]) == 10
    assert {k: v for k, v in checked["optimizers"].items() if v > 5e-6} == {}


def test_the_running_variance_is_torch_s(checked: Any) -> None:
    assert checked["variance"] < 1e-5


def test_a_restored_state_goes_on_bit_for_bit(checked: Any) -> None:
    assert set(checked["restores"].values()) == {True}


def trained(
    python: str, framework: str, mode: str, recipe: Recipe, directory: Path
) -> tuple[Learning, Provenance]:
    """Two epochs of the perceptron, the first of 20 steps, through a worker of its own."""
    task = Task(kind=TaskKind.REGRESSION, input_shape=(8,), outputs=1)
    spec = FAMILIES.create("mlp").spec(framework, task=task)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(157, 8)).astype(np.float32)
    rows = Split(inputs=inputs, targets=np.sin(inputs[:, :1]) + 1)
    with WorkerProcess(threads=1, timeout_s=240, python=python, module=MODULE) as worker:
        probe = TrainingProbe(worker)
        split = write_split(rows, directory)
        probe.open(framework, mode, spec, recipe, len(rows), split, Settings(threads=1))
        assert (probe.block(Scope.EPOCH, 2).samples > 0).all()
        return probe.learning(), worker.provenance()


@pytest.mark.parametrize(
    ("mode", "optimizer", "momentum"), [("gluon", "sgd", 0.9), ("hybrid", "adam", 0.0)]
)
def test_mxnet_agrees_with_torch_at_each_of_20_steps(
    tmp_path: Path, mode: str, optimizer: str, momentum: float
) -> None:
    recipe = Recipe(
        epochs=1, seed=3, batch=8, learning_rate=0.01,
        optimizer=optimizer, momentum=momentum, weight_decay=1e-3,
    )  # fmt: skip
    theirs, provenance = trained(mxnet_python(), "mxnet", mode, recipe, tmp_path)
    ours, _ = trained(sys.executable, "torch", "eager", recipe, tmp_path)
    assert theirs.start == ours.start
    assert len(ours.first_steps) == 20
    np.testing.assert_allclose(theirs.first_steps, ours.first_steps, rtol=ROUNDING)
    np.testing.assert_allclose(theirs.losses, ours.losses, rtol=ROUNDING)
    assert ours.losses[1] < ours.losses[0]
    assert (provenance.runtime, provenance.version) == (f"mxnet:{mode}", "1.9.1")
    assert provenance.details["numpy"] == "1.23.5"


def test_the_trainer_says_how_to_get_mxnet() -> None:
    """MXNet is in no environment that the tests themselves run in."""
    with pytest.raises(UnavailableError, match="could not be imported") as caught:
        TRAINERS.create("mxnet")
    assert "make mxnet-env" in caught.value.hint

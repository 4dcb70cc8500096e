"""toolkit train --nproc: several processes share each batch, by torchrun."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.conftest import TOOLKIT, Run
from toolkit.core.artifact import Checkpoint


@pytest.mark.all_cores
def test_two_processes_learn_what_one_does(toolkit_cli: Run, tmp_path: Path) -> None:
    """The gradient is that of the whole batch, so that losses and weights agree to rounding; the
    last batch of 1437 rows has an odd number. A larger learning rate multiplies the rounding with
    every step, by how much depends on the processor."""
    args = ("train", "lenet", "--data", "digits", "--epochs", 2, "--lr", 0.003, "--json")
    histories = {}
    for name, more in (("one", ()), ("two", ("--nproc", 2))):
        done = toolkit_cli(*args, "--out", name, *more)
        assert done.returncode == 0, done.stderr
        histories[name] = json.loads(done.stdout)["training"]["history"]
    one, two = (Checkpoint.load(tmp_path / name) for name in ("one", "two"))
    assert two.training["machine"]["processes"] == 2
    for a, b in zip(histories["one"], histories["two"], strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-5)
        assert b["train_metric"] == pytest.approx(a["train_metric"], abs=0.01)
    right, found = one.weights(), two.weights()
    for name, array in right.items():
        np.testing.assert_allclose(found[name], array, atol=2e-3 * np.abs(array).max())


def test_it_goes_on_from_a_checkpoint(toolkit_cli: Run, tmp_path: Path) -> None:
    args = ("--nproc", 2, "--epochs")
    first = toolkit_cli("train", "resnet", "--data", "digits", "--out", "a", *args, 1)
    assert first.returncode == 0, first.stderr
    second = toolkit_cli("train", "--resume", "a", "--out", "b", *args, 2)
    assert second.returncode == 0, second.stderr
    assert len(Checkpoint.load(tmp_path / "b").training["history"]) == 2


@pytest.fixture
def training(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A long training in two processes, with its first epoch done."""
    command = [TOOLKIT, "train", "lenet", "--data", "digits", "--epochs", "500", "--nproc", "2"]
    with subprocess.Popen(
        [*command, "--out", "net"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            deadline = time.monotonic() + 90
            while not (tmp_path / "net").exists() or Checkpoint.load(tmp_path / "net").epoch < 1:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.3)
            yield process
        finally:
            process.kill()


def test_ctrl_c_keeps_the_epochs_and_leaves_no_process(
    training: subprocess.Popen[str], tmp_path: Path
) -> None:
    ranks = psutil.Process(training.pid).children(recursive=True)
    assert len(ranks) >= 2
    training.send_signal(signal.SIGINT)
    _, err = training.communicate(timeout=60)
    assert training.returncode == 130, err
    assert Checkpoint.load(tmp_path / "net").epoch >= 1
    _, alive = psutil.wait_procs(ranks, timeout=20)
    assert not alive


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--mode", "compile"), "torch:compile, which trains in one"),
        (("--framework", "jax"), "jax:"),
        (("--batch-size", 1), "batches of 1"),
        (("--nproc", 0), "expected 1 or more"),
    ],
)
def test_wrong_use_is_told(
    toolkit_cli: Run, tmp_path: Path, args: tuple[object, ...], told: str
) -> None:
    done = toolkit_cli("train", "lenet", "--data", "digits", "--out", "x", "--nproc", 2, *args)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_process_that_dies_ends_the_training(training: subprocess.Popen[str]) -> None:
    children = psutil.Process(training.pid).children(recursive=True)
    assert len(children) >= 3
    max(children, key=lambda child: child.create_time()).kill()  # torchrun starts them last
    _, err = training.communicate(timeout=90)
    assert training.returncode == 3, err
    assert "A process of the training ended" in err
    assert "--resume goes on from there" in err

"""The worker that trains, through the parent's end of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models import FAMILIES
from toolkit.core.errors import PluginError, SessionError, ToolkitError, UnknownNameError
from toolkit.core.measurement import Opening, Scope
from toolkit.core.specs import Task, TaskKind
from toolkit.data.base import Split
from toolkit.measuring.workers.client import WorkerProcess
from toolkit.measuring.workers.training_client import MODULE, TrainingProbe, write_split
from toolkit.trainers.base import Settings
from toolkit.trainers.recipe import Recipe

TASK = Task(kind=TaskKind.CLASSIFICATION, input_shape=(4,), outputs=3)
RECIPE = Recipe(epochs=1, seed=0, batch=8, learning_rate=0.1, optimizer="sgd")


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess(threads=1, timeout_s=120, module=MODULE) as process:
        yield process


def opened(
    probe: TrainingProbe, directory: Path, framework: str = "torch", mode: str | None = None,
    recipe: Recipe = RECIPE, scale: float = 1.0,
) -> Opening:  # fmt: skip
    rng = np.random.default_rng(0)
    inputs = (rng.normal(size=(44, 4)) * scale).astype(np.float32)
    rows = Split(inputs=inputs, targets=rng.integers(0, 3, 44))
    spec = FAMILIES.create("mlp").spec("torch", task=TASK)
    split = write_split(rows, directory)
    return probe.open(framework, mode, spec, recipe, len(rows), split, Settings(threads=1))


def test_epochs_count_on_from_block_to_block(worker: WorkerProcess, tmp_path: Path) -> None:
    probe = TrainingProbe(worker)
    opening = opened(probe, tmp_path)
    assert min(opening.import_ns, opening.open_ns, opening.first_run_ns) > 0
    parts = [probe.block(Scope.EPOCH, count) for count in (1, 3)]
    assert [len(part.samples) for part in parts] == [1, 3]
    learning = probe.learning()
    assert (len(learning.losses), len(learning.first_steps), learning.rows) == (4, 6, 44)
    assert learning.losses[-1] < learning.losses[0]  # it goes on learning
    # The last batch has four rows, and counts as such; the first epoch was taken back before.
    sizes = [8, 8, 8, 8, 8, 4]
    assert learning.losses[0] == pytest.approx(np.average(learning.first_steps, weights=sizes))
    with pytest.raises(PluginError, match="scope forward"):
        probe.block(Scope.FORWARD, 1)
    assert worker.provenance().runtime == "torch:eager"
    assert worker.peak_rss_bytes() > 2**20


def test_a_loss_that_is_lost_is_named(worker: WorkerProcess, tmp_path: Path) -> None:
    probe = TrainingProbe(worker)
    opened(probe, tmp_path, scale=1e25, recipe=RECIPE)
    with pytest.raises(SessionError, match=r"The loss is (nan|inf) at step \d of epoch 1"):
        probe.block(Scope.EPOCH, 1)


def test_what_is_not_there_is_refused(worker: WorkerProcess, tmp_path: Path) -> None:
    probe = TrainingProbe(worker)
    with pytest.raises(SessionError, match="before a session"):
        probe.block(Scope.EPOCH, 1)
    with pytest.raises(UnknownNameError, match="trainer named 'torhc'"):
        opened(probe, tmp_path, framework="torhc")
    with pytest.raises(ToolkitError, match="mode"):
        opened(probe, tmp_path, mode="nosuch")


def test_the_worker_needs_numpy_safetensors_and_msgspec_alone() -> None:
    """So that it runs in the environment of a framework that can have no more."""
    code = (
        f"import {MODULE}, sys\n"
        "print(*{name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    found = {name for name in done.stdout.split() if not name.startswith(("_", "cython"))}
    # msgspec imports typing_extensions where it is installed.
    assert found - {"sitecustomize", "typing_extensions", "usercustomize"} == {
        "models", "msgspec", "numpy", "safetensors", "toolkit",
    }  # fmt: skip

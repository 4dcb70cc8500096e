"""What all tests share: the real command line, and one trained and exported model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

CORES_APART = "CORES_APART"
"""In the environment: tests at a time get cores of their own, where each can have two or more. On
many cores, threads of each that spin on all of them take minutes for seconds."""

TOOLKIT = Path(sys.executable).with_name("toolkit")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_configure() -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if CORES_APART in os.environ and worker:
        number, workers = int(worker[2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        cores = sorted(os.sched_getaffinity(0))
        share = len(cores) // workers
        if share >= 2:
            os.sched_setaffinity(0, cores[number * share : (number + 1) * share])


def run_toolkit(
    *args: object, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the installed console script as a user does."""
    return subprocess.run(
        [TOOLKIT, *map(str, args)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture
def toolkit_cli(tmp_path: Path) -> Run:
    """The command line in a directory of the test's own."""

    def run(
        *args: object, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return run_toolkit(*args, cwd=tmp_path, env=env)

    return run


@pytest.fixture(scope="session")
def main_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `lenet`, a trained checkpoint, and `lenet-onnx`, its export."""
    place = tmp_path_factory.mktemp("main-path")
    for args in (
        ("train", "lenet", "--data", "digits", "--out", "lenet"),
        ("export", "lenet", "--to", "onnx", "--out", "lenet-onnx"),
    ):
        done = run_toolkit(*args, cwd=place)
        assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="session")
def checkpoint_dir(main_path: Path) -> Path:
    return main_path / "lenet"


@pytest.fixture(scope="session")
def artifact_dir(main_path: Path) -> Path:
    return main_path / "lenet-onnx"

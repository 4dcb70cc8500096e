"""What all tests share: the real command line, and one trained and exported model."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from tests import fork_server
from tests.artifacts import made_once

TOOLKIT = Path(sys.executable).with_name("toolkit")
LONG = (
    "test_pages.py",
    "test_real_start.py",
    "test_gpu_check.py",
    "test_study_ray.py",
    "test_with_tripy.py",
    "test_ode_training.py",
    "test_optimize.py",
)
"""Files that take long for few tests; in a parallel run they come first, so that none is left over
at the end when the other processes are done."""

_file: Path | None = None
_all_cores = _own_cores = sorted(os.sched_getaffinity(0))

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        _share_the_cores()
    elif config.getoption("numprocesses", None):
        return  # the tests run in processes of its own
    _heed_signals()
    fork_server.install()


def _share_the_cores() -> None:
    """Give this process cores of its own, where there are enough for all.

    Threads that wait for each other by spinning take the cores that another test needs.
    """
    global _own_cores
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    if share:
        _own_cores = cores[number * share : (number + 1) * share]
        os.sched_setaffinity(0, _own_cores)  # before frameworks count them


def _heed_signals() -> None:
    """Let tests, and what they start, receive signals that the caller of pytest ignores.

    Under `nohup`, or in the background of a script, signals are ignored, and ignored signals are
    inherited. A handler is not.
    """
    handlers = {signal.SIGHUP: lambda *_: None, signal.SIGINT: signal.default_int_handler}
    for number, handler in handlers.items():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files as `--no-loadscope-reorder` distributes them: long ones first, then by tests."""
    counts = Counter(item.path for item in items)
    ranks = {path: LONG.index(path.name) if path.name in LONG else len(LONG) for path in counts}
    items.sort(key=lambda item: (ranks[item.path], -counts[item.path], item.path))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    global _file
    if item.path != _file:
        _file = item.path
        gc.collect()
        gc.freeze()  # or each collection would go through everything that is imported
    os.sched_setaffinity(0, _all_cores if item.get_closest_marker("all_cores") else _own_cores)
    fork_server.accepted = dict(os.environ)
    fork_server.enabled = item.get_closest_marker("real_start") is None


def run_toolkit(
    *args: object, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run the installed console script as a user does."""
    return subprocess.run(
        [TOOLKIT, *map(str, args)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def workers_of(process: subprocess.Popen[str], count: int) -> list[psutil.Process]:
    """Return the `count` children that were started last, in this order.

    The first child of a forked process is its fork server.
    """
    children = psutil.Process(process.pid).children()
    assert len(children) >= count, process.poll()
    return sorted(children, key=lambda child: child.create_time())[-count:]


@pytest.fixture
def toolkit_cli(tmp_path: Path) -> Run:
    """The command line in a directory of the test's own."""

    def run(
        *args: object, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return run_toolkit(*args, cwd=tmp_path, env=env)

    return run


MAIN_PATH = (
    ["train", "lenet", "--data", "digits", "--epochs", "10", "--seed", "0", "--out", "lenet"],
    ["export", "lenet", "--to", "onnx", "--out", "lenet-onnx"],
)
"""The README's first commands."""


@pytest.fixture(scope="session")
def main_path() -> Path:
    """A directory with `lenet`, a trained checkpoint, and `lenet-onnx`, its export."""

    def make(place: Path) -> None:
        for args in MAIN_PATH:
            done = run_toolkit(*args, cwd=place)
            assert done.returncode == 0, done.stderr

    return made_once("main-path", MAIN_PATH, make)


@pytest.fixture(scope="session")
def checkpoint_dir(main_path: Path) -> Path:
    return main_path / "lenet"


@pytest.fixture(scope="session")
def artifact_dir(main_path: Path) -> Path:
    return main_path / "lenet-onnx"


Exported = Callable[[str], Path]


@pytest.fixture(scope="session")
def exported(checkpoint_dir: Path) -> Exported:
    """The export of `checkpoint_dir` to a target, made once."""

    def export(target: str) -> Path:
        args = ("export", checkpoint_dir, "--to", target, "--out", "artifact")

        def make(place: Path) -> None:
            done = run_toolkit(*args, cwd=place)
            assert done.returncode == 0, done.stderr

        return made_once(f"lenet-{target}", (*MAIN_PATH, *args), make) / "artifact"

    return export

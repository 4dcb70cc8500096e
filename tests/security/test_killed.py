"""What a killed process leaves behind is removed by the next one, and nothing else is."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import run_toolkit
from toolkit.core.errors import UsageError
from toolkit.core.files import (
    locked_directory,
    new_directory,
    replaced_directory,
    write_atomically,
)
from toolkit.core.temporary import scratch_directory, sweep

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that takes the place of /tmp."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    return place


Begin = Callable[[Callable[[], object]], int]
_ready = -1


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Start a process that does some work until `wait_to_be_killed`, and return its id."""
    started: list[int] = []

    def start(work: Callable[[], object]) -> int:
        global _ready
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            _ready = writer
            os.close(reader)
            work()
            os._exit(1)
        started.append(pid)
        os.close(writer)
        assert os.read(reader, 1) == b"."
        os.close(reader)
        return pid

    yield start
    for pid in started:
        with contextlib.suppress(ChildProcessError):  # one that the test killed: its id is free
            os.waitpid(pid, os.WNOHANG)
            kill(pid)


def wait_to_be_killed() -> None:
    os.write(_ready, b".")
    signal.pause()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_the_next_directory_removes_those_of_killed_processes_only(
    begin: Begin, tmp_path: Path
) -> None:
    def work(target: Path) -> None:
        with new_directory(target) as partial:
            (partial / "weights").write_bytes(b"1")
            wait_to_be_killed()

    killed = begin(functools.partial(work, tmp_path / "killed"))
    begin(functools.partial(work, tmp_path / "alive"))
    (tmp_path / ".mine.partial-abcdefgh").mkdir()
    (tmp_path / "toolkit-tmp-notes").mkdir()
    kill(killed)
    with new_directory(tmp_path / "other"):
        pass
    left = sorted(path.name.partition("toolkit-tmp-")[0] for path in tmp_path.iterdir())
    assert left == ["", ".alive.", ".mine.partial-abcdefgh", "other"]


def test_a_directory_that_was_finished_stays(tmp_path: Path) -> None:
    with new_directory(tmp_path / "made") as partial:
        (partial / "weights").write_bytes(b"1")
    sweep(tmp_path)
    assert (tmp_path / "made" / "weights").read_bytes() == b"1"


def test_the_next_file_removes_that_of_a_killed_process(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> None:
        monkeypatch.setattr(os, "fsync", lambda descriptor: wait_to_be_killed())
        write_atomically(tmp_path / "result.json", b"old")

    kill(begin(work))
    assert len(list(tmp_path.iterdir())) == 1
    write_atomically(tmp_path / "other.json", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]


def test_the_next_scratch_directory_removes_that_of_a_killed_process(
    begin: Begin, temporary: Path
) -> None:
    def work() -> None:
        with scratch_directory() as scratch:
            (scratch / "rows").write_bytes(b"1")
            wait_to_be_killed()

    alive, killed = begin(work), begin(work)
    kill(killed)
    with scratch_directory():
        assert len(list(temporary.iterdir())) == 2
    kill(alive)
    with scratch_directory():
        assert len(list(temporary.iterdir())) == 1
    assert list(temporary.iterdir()) == []


def test_any_command_removes_scratch_directories(begin: Begin, temporary: Path) -> None:
    def work() -> None:
        with scratch_directory():
            wait_to_be_killed()

    kill(begin(work))
    done = run_toolkit("models", cwd=temporary, env={"TMPDIR": str(temporary)})
    assert done.returncode == 0, done.stderr
    assert list(temporary.iterdir()) == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("kept")
    (tmp_path / "toolkit-tmp-abcdefgh").symlink_to(tmp_path / "mine")
    (tmp_path / "toolkit-tmp-bcdefghi").symlink_to(tmp_path / "mine" / "file")
    sweep(tmp_path)
    assert (tmp_path / "mine" / "file").read_text() == "kept"


def test_a_replaced_directory_is_there_at_any_time(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    with new_directory(target) as partial:
        (partial / "epoch").write_text("0")
    missing, done = [], threading.Event()

    def read() -> None:
        while not done.is_set():
            if not os.path.exists(target):  # noqa: PTH110  # the fastest look there is
                missing.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    for epoch in range(1, 101):
        with replaced_directory(target) as partial:
            (partial / "epoch").write_text(str(epoch))
    done.set()
    reader.join()
    assert not missing
    assert (target / "epoch").read_text() == "100"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_lock_ends_with_its_process(begin: Begin, tmp_path: Path) -> None:
    def work() -> None:
        with locked_directory(tmp_path, "runs a search"):
            wait_to_be_killed()

    holder = begin(work)
    with pytest.raises(UsageError, match="Another process runs a search"):  # noqa: SIM117
        with locked_directory(tmp_path, "runs a search"):
            pass
    kill(holder)
    with locked_directory(tmp_path, "runs a search"):
        pass

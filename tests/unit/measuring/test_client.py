"""The parent's end of a worker process, against real processes with the null runtime."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import (
    FeedError,
    SessionError,
    UnknownNameError,
    WorkerDiedError,
    WorkerTimeoutError,
)
from toolkit.core.measurement import Scope
from toolkit.core.session import SessionOptions
from toolkit.core.specs import ModelSpec, Signature, TensorSpec
from toolkit.core.version import VERSION
from toolkit.measuring.load_test.load_generator import Schedule
from toolkit.measuring.workers.client import THREAD_VARIABLES, WorkerProcess, worker_environment

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("n", "k")),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("n", "k")),),
)
DIGEST = f"sha256:{'0' * 64}"
ARTIFACT = Artifact(
    model=ModelSpec(name="m", family="f", framework="none", signature=SIGNATURE),
    format=Format.ONNX,
    precision="float32",
    signature=SIGNATURE,
    directory=Path("/nowhere"),
    entry="model.onnx",
    digest=DIGEST,
    files={},
)
OPTIONS = SessionOptions(threads=1)
FEEDS = {"x": np.ones((2, 3), np.float32)}
PATIENT_S = 60.0


@pytest.fixture(scope="module")
def opened() -> Iterator[WorkerProcess]:
    """A worker that has the null runtime open; for tests that leave it alive."""
    with WorkerProcess(threads=1, timeout_s=PATIENT_S) as worker:
        worker.open("null", [ARTIFACT], OPTIONS, [FEEDS])
        yield worker


@pytest.fixture
def fresh() -> Iterator[WorkerProcess]:
    """A worker with nothing open yet, for a test to break."""
    with WorkerProcess(threads=1, timeout_s=PATIENT_S) as worker:
        yield worker


@pytest.fixture
def never_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are not stopped and told to go on, so that a test can stop one for good."""
    monkeypatch.setattr("toolkit.measuring.workers.client.LINUX", False)


def is_gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_open_tells_what_was_opened_and_how_long_it_took(fresh: WorkerProcess) -> None:
    opened = fresh.open("null", [ARTIFACT], OPTIONS, [FEEDS])
    assert (opened.computes, opened.artifact_digest) == (False, DIGEST)
    found = opened.opening
    assert min(found.import_ns, found.open_ns, found.first_run_ns) > 0
    assert None not in (found.import_bytes, found.open_bytes, found.first_run_bytes)


def test_run_gives_the_outputs(opened: WorkerProcess) -> None:
    outputs = opened.run(FEEDS)
    assert list(outputs) == ["y"]
    assert outputs["y"].dtype == np.float32
    np.testing.assert_array_equal(outputs["y"], np.zeros((2, 3)))


@pytest.mark.parametrize("scope", [Scope.FORWARD, Scope.END_TO_END])
def test_block_gives_a_sample_for_each_run(opened: WorkerProcess, scope: Scope) -> None:
    timed = opened.block(scope, 17)
    samples = timed.samples
    assert (samples.shape, samples.dtype) == ((17,), np.int64)
    assert (samples >= 0).all()
    assert timed.rss_bytes is not None
    assert 2**20 < timed.rss_bytes <= opened.peak_rss_bytes()


@pytest.fixture(scope="module")
def three_sessions() -> Iterator[WorkerProcess]:
    with WorkerProcess(threads=1, timeout_s=PATIENT_S) as worker:
        worker.open("null", [ARTIFACT], OPTIONS, [FEEDS], sessions=3)
        yield worker


@pytest.mark.parametrize("clients", [1, 3])
def test_a_window_without_arrivals_is_a_closed_loop(
    three_sessions: WorkerProcess, clients: int
) -> None:
    asked = Schedule(clients=clients, most_queries=50, most_ns=None)
    answers = three_sessions.window(asked)
    assert len(answers.started) == len(answers.finished) == 50
    assert answers.started.dtype == answers.finished.dtype == answers.lead.dtype == np.int64
    assert len(answers.lead) >= clients


def test_a_window_follows_its_arrivals(three_sessions: WorkerProcess) -> None:
    arrivals = np.arange(1, 21, dtype=np.int64) * 1_000_000
    asked = Schedule(clients=3, most_queries=20, most_ns=60 * 10**9, arrivals=arrivals)
    answers = three_sessions.window(asked)
    assert len(answers.started) == 20
    assert (answers.started >= arrivals).all()


def test_a_window_that_is_over_at_once_has_no_answers(three_sessions: WorkerProcess) -> None:
    answers = three_sessions.window(Schedule(clients=3, most_queries=5, most_ns=0))
    assert len(answers.started) == len(answers.finished) == 0
    assert len(answers.lead) >= 3


@pytest.mark.parametrize("session", [0, 2])
def test_every_session_gives_outputs(three_sessions: WorkerProcess, session: int) -> None:
    assert three_sessions.run(FEEDS, session)["y"].shape == (2, 3)


def test_a_window_that_hangs_is_ended_at_the_time_limit_after_its_own(never_stopped: None) -> None:
    with WorkerProcess(threads=1, timeout_s=0.2) as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(WorkerTimeoutError, match=r"'window' in 0\.3 s"):
            worker.window(Schedule(clients=1, most_queries=1, most_ns=100_000_000))
        assert is_gone(worker.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are stopped on Linux only")
def test_a_worker_stands_still_in_all_its_threads_as_soon_as_it_answered(
    opened: WorkerProcess,
) -> None:
    for _ in range(20):
        opened.block(Scope.FORWARD, 10)
        threads = psutil.Process(opened.pid).threads()
        states = {psutil.Process(thread.id).status() for thread in threads}
        assert states == {psutil.STATUS_STOPPED}


def test_provenance_and_memory(opened: WorkerProcess) -> None:
    provenance = opened.provenance()
    assert (provenance.runtime, provenance.version, provenance.threads) == ("null", VERSION, 1)
    memory = psutil.Process(opened.pid).memory_info()
    assert 0 < opened.peak_rss_bytes() <= memory.vms


def test_probe(opened: WorkerProcess) -> None:
    availability = opened.probe("null")
    assert (availability.ok, availability.version) == (True, VERSION)


@pytest.mark.real_start
def test_every_thread_pool_is_told_the_number_of_threads() -> None:
    with WorkerProcess(threads=1, timeout_s=PATIENT_S) as worker:
        worker.probe("null")
        told = psutil.Process(worker.pid).environ()
    assert {told[name] for name in THREAD_VARIABLES} == {"1"}
    assert worker_environment(3)["OMP_NUM_THREADS"] == "3"


def test_large_arrays_pass(opened: WorkerProcess) -> None:
    large = np.ones((3, 2_500_000), np.float32)  # 30 MB each way
    assert opened.run({"x": large})["y"].shape == large.shape


def test_an_unknown_runtime_comes_back_with_its_hint(opened: WorkerProcess) -> None:
    with pytest.raises(UnknownNameError, match="'nul'") as caught:
        opened.probe("nul")
    assert "Did you mean 'null'?" in caught.value.hint
    with pytest.raises(UnknownNameError, match="'nul'"):
        opened.open("nul", [ARTIFACT], OPTIONS, [FEEDS])


def test_a_runtime_that_nobody_registered_is_answered_with_those_there_are(
    opened: WorkerProcess,
) -> None:
    with pytest.raises(UnknownNameError) as caught:
        opened.probe("zzz")
    assert "Did you mean" not in caught.value.hint
    assert {"null", "onnxruntime", "torch"} <= set(re.findall(r"[\w-]+", caught.value.hint))


def test_a_wrong_feed_comes_back_typed_and_the_worker_goes_on(opened: WorkerProcess) -> None:
    with pytest.raises(FeedError, match="float64") as caught:
        opened.run({"x": np.ones((2, 3))})
    assert "astype('float32')" in caught.value.hint
    with pytest.raises(FeedError, match="'x' is missing"):
        opened.run({})
    assert opened.run(FEEDS).keys() == {"y"}


def test_a_call_before_open_is_refused(fresh: WorkerProcess) -> None:
    with pytest.raises(SessionError, match="'run'"):
        fresh.run(FEEDS)


def test_a_worker_killed_between_calls_is_named_as_killed(fresh: WorkerProcess) -> None:
    fresh.open("null", [ARTIFACT], OPTIONS, [FEEDS])
    os.kill(fresh.pid, signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match=r"SIGKILL.*'run'") as caught:
        fresh.run(FEEDS)
    assert "killed from outside" in caught.value.hint
    with pytest.raises(WorkerDiedError) as caught:
        fresh.run(FEEDS)
    assert "another worker" in caught.value.hint


def test_another_signal_is_named_too(fresh: WorkerProcess) -> None:
    fresh.probe("null")
    os.kill(fresh.pid, signal.SIGTERM)
    with pytest.raises(WorkerDiedError, match=r"SIGTERM \(signal 15\)"):
        fresh.probe("null")


def test_a_worker_that_used_up_its_processor_time_took_too_long(fresh: WorkerProcess) -> None:
    fresh.probe("null")
    os.kill(fresh.pid, signal.SIGXCPU)
    with pytest.raises(WorkerTimeoutError, match="processor time"):
        fresh.probe("null")


def test_a_worker_that_hangs_is_ended_at_the_time_limit(never_stopped: None) -> None:
    with WorkerProcess(threads=1, timeout_s=0.2) as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(WorkerTimeoutError, match=r"'probe' in 0\.2 s") as caught:
            worker.probe("null")
        assert "--timeout" in caught.value.hint
        assert is_gone(worker.pid)
        with pytest.raises(WorkerDiedError):
            worker.probe("null")


def test_a_hanging_worker_does_not_hang_a_large_send(never_stopped: None) -> None:
    with WorkerProcess(threads=1, timeout_s=0.2) as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(WorkerTimeoutError):
            worker.run({"x": np.ones((1, 1_000_000), np.float32)})


def test_closing_ends_the_process_and_may_be_repeated() -> None:
    worker = WorkerProcess(threads=1, timeout_s=PATIENT_S)
    worker.open("null", [ARTIFACT], OPTIONS, [FEEDS])
    worker.close()
    assert is_gone(worker.pid)
    worker.close()


def test_closing_a_stopped_worker_ends_it() -> None:
    with WorkerProcess(threads=1, timeout_s=PATIENT_S) as worker:
        os.kill(worker.pid, signal.SIGSTOP)
    assert is_gone(worker.pid)


def test_a_call_after_close_is_refused(fresh: WorkerProcess) -> None:
    fresh.close()
    with pytest.raises(WorkerDiedError):
        fresh.run(FEEDS)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_feed_that_cannot_be_sent_is_a_feed_error() -> None:
    with WorkerProcess(threads=1, timeout_s=2.0) as worker, pytest.raises(FeedError):
        worker.run({"x": np.array([None])})


PARENT = """
import sys, time
from toolkit.measuring.workers.client import WorkerProcess
worker = WorkerProcess(threads=1, timeout_s=60)
worker.probe("null")
sys.stdout.write(f"{worker.pid}\\n")
sys.stdout.flush()
time.sleep(600)
"""


def test_a_worker_ends_when_its_parent_dies() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
        parent.kill()
    give_up = time.monotonic() + 10
    while not is_gone(pid) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert is_gone(pid)

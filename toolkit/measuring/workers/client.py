"""Client of a worker process, used by the parent process."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Self, final

import numpy as np

from toolkit.core.artifact import Artifact
from toolkit.core.codec import decode, encode
from toolkit.core.documents import Json
from toolkit.core.errors import (
    FeedError,
    UsageError,
    WorkerDiedError,
    WorkerError,
    WorkerTimeoutError,
    from_wire,
)
from toolkit.core.measurement import Opening, Scope
from toolkit.core.session import Availability, Provenance, SessionOptions
from toolkit.core.specs import Feeds, Outputs
from toolkit.measuring.load_test.load_generator import Answers, Schedule
from toolkit.measuring.timing.clock import Timed
from toolkit.measuring.workers import wire
from toolkit.measuring.workers.prctl import LINUX
from toolkit.measuring.workers.wire import REPLY

# Read at startup by the thread pools of torch, NumPy's BLAS, MKL and TensorFlow.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)


def worker_environment(threads: int) -> dict[str, str]:
    """Return this process's environment, with the number of threads set for every pool."""
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}


MOST_SECONDS = 1e6
PIPE_BYTES = 4096  # always fit into the pipe of a worker that has answered every command


def check_timeout(seconds: float) -> None:
    """Raise UsageError unless the timeout is above 0 and at most MOST_SECONDS."""
    if not 0 < seconds <= MOST_SECONDS:
        raise UsageError(
            f"Got a timeout of {seconds:g} s, expected more than 0.", hint="Give more seconds."
        )


@contextlib.contextmanager
def _running_on(cpus: frozenset[int] | None) -> Iterator[None]:
    """Pin this thread to `cpus` inside the block; a child process inherits them from its start."""
    if cpus is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Reply of a worker that opened a session and ran it once."""

    computes: bool
    device: str
    artifact_digest: str
    opening: Opening


@final
class WorkerProcess:
    """Worker process and the pipes to it. As a context manager, it ends the process on exit.

    On Linux the process is suspended (SIGSTOP) while it has no command to run. Threads of a pool
    may spin long after the last pass (those of ONNX Runtime for more than 30 ms), and would take a
    core from the process that is measured next.

    `python` runs `module`, which answers the commands that `ask` sends. The commands of
    toolkit.measuring.workers.worker also have methods here.

    Every call raises WorkerDiedError if the process has ended, WorkerTimeoutError if it does not
    answer within `timeout_s` seconds (the process is then killed) or exceeds its limit of processor
    time, and any ToolkitError that the worker sends back.
    """

    def __init__(
        self,
        *,
        threads: int,
        timeout_s: float,
        cpus: frozenset[int] | None = None,
        python: str = sys.executable,
        module: str = "toolkit.measuring.workers.worker",
    ) -> None:
        self._threads = threads
        self.timeout_s = timeout_s
        self._broken = self._closed = False
        self._preparing = 0  # commands whose replies have not been read yet
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        # The worker ends itself when the write end of this pipe is closed, for whatever reason.
        lifeline, self._lifeline = os.pipe()
        with _running_on(cpus):
            self._process = subprocess.Popen(
                [python, "-P", "-m", module, str(lifeline)],
                pass_fds=(lifeline,),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=worker_environment(threads),
                # In a new session, Ctrl-C reaches only the parent, and killpg() every child.
                start_new_session=True,
            )
        os.close(lifeline)
        self._replies: queue.SimpleQueue[tuple[Json, dict[str, np.ndarray]] | None]
        self._replies = queue.SimpleQueue()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin: BinaryIO = self._process.stdin  # type: ignore[assignment]
        self._stdout: BinaryIO = self._process.stdout  # type: ignore[assignment]
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Read replies until the pipe ends. Blocking costs the measured code no CPU time."""
        try:
            while (reply := wire.receive(self._stdout)) is not None:
                self._replies.put(reply)
        except (OSError, ValueError, FeedError):
            pass  # closed by close(), or not a valid frame: no more replies will come
        finally:
            self._replies.put(None)

    def _send(self, frame: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # ended or closed: _read reports it
            wire.send(self._stdin, frame)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def answers(self) -> bool:
        """Whether the worker can take commands: it is alive, and no call was interrupted."""
        return not self._broken and self._process.poll() is None

    def probe(self, runtime: str) -> Availability:
        reply, _ = self.ask({"command": "probe", "runtime": runtime})
        return Availability(
            ok=reply["ok_here"],
            version=reply["version"],
            reason=reply["reason"],
            hint=reply["hint"],
        )

    def peak(self, what: str, seconds: float) -> float:
        """Measure peak operations, or bytes for a copy, per second: see machine/peak_kernels.py."""
        message = {"command": "peak", "what": what, "threads": self._threads, "seconds": seconds}
        return float(self.ask(message)[0]["rate"])

    def open(
        self,
        runtime: str,
        artifacts: Sequence[Artifact],
        options: SessionOptions,
        feeds: Sequence[Feeds] = (),
        sessions: int = 1,
        core: int | None = None,
    ) -> Opened:
        """Open the first artifact that the runtime accepts, in `sessions` sessions.

        The worker keeps `feeds` for blocks and windows. The returned values are those of the first
        session. Here and in `block` and `window`, `core` is the core on which the worker begins.
        """
        message = {
            "command": "open",
            "runtime": runtime,
            "artifacts": encode(list(artifacts)),
            "options": encode(options),
            "sessions": sessions,
            "sets": len(feeds),
            "core": core,
        }
        arrays = {
            f"{i}/{name}": array for i, one in enumerate(feeds) for name, array in one.items()
        }
        reply, _ = self.ask(message, arrays)
        return Opened(
            computes=reply["computes"],
            device=reply["device"],
            artifact_digest=reply["artifact"],
            opening=decode(reply["opening"], Opening, REPLY),
        )

    def run(self, feeds: Feeds, session: int = 0) -> Outputs:
        """Return the outputs of one session, while all sessions run on the same inputs."""
        return self.ask({"command": "run", "session": session}, feeds)[1]

    def release(self) -> None:
        """Close the sessions and free their memory. The process can then open others."""
        self.ask({"command": "release"})

    def block(self, scope: Scope, count: int, core: int | None = None) -> Timed:
        """Time `count` consecutive runs."""
        message = {"command": "block", "scope": scope, "count": count, "core": core}
        reply, arrays = self.ask(message)
        return Timed(samples=arrays["samples"], rss_bytes=reply["rss_bytes"])

    def window(self, schedule: Schedule, core: int | None = None) -> Answers:
        """Answer the queries of a window: see `serving.answer`. `timeout_s` starts at its end."""
        message = {
            "command": "window",
            "clients": schedule.clients,
            "most_queries": schedule.most_queries,
            "most_ns": schedule.most_ns,
            "core": core,
        }
        arrivals = {} if schedule.arrivals is None else {"arrivals": schedule.arrivals}
        planned_s = (schedule.most_ns or 0) / 1e9
        return Answers(**self.ask(message, arrivals, planned_s)[1])

    def provenance(self) -> Provenance:
        return decode(self.ask({"command": "provenance"})[0]["provenance"], Provenance, REPLY)

    def peak_rss_bytes(self) -> int:
        return int(self.ask({"command": "memory"})[0]["peak_rss_bytes"])

    def ask(
        self,
        message: Json,
        arrays: Mapping[str, np.ndarray] | None = None,
        planned_s: float = 0.0,
    ) -> tuple[Json, dict[str, np.ndarray]]:
        """Return the reply to a command. `planned_s` is added to the timeout."""
        attempt = message["command"]
        limit_s = planned_s + self.timeout_s
        if self._broken:
            raise WorkerDiedError(
                f"{attempt!r} was asked of a worker that is closed, or whose last call was broken "
                "off.",
                hint="Start another worker.",
            )
        frame = wire.encode(message, arrays)
        self._broken = True  # until the reply is here, since Ctrl-C can interrupt the wait
        for _ in range(self._preparing):
            self._reply(attempt, limit_s)
        self._preparing = 0
        if len(frame) <= PIPE_BYTES:
            self._send(frame)
            self._signal(signal.SIGCONT)
        else:  # in a thread, since a worker that hangs does not read its pipe
            self._signal(signal.SIGCONT)
            threading.Thread(target=self._send, args=(frame,), daemon=True).start()
        reply = self._reply(attempt, limit_s)
        self._broken = False
        self._rest()
        if not reply[0]["ok"]:
            raise from_wire(reply[0])
        return reply

    def prepare(self, message: Json) -> None:
        """Send a command, such as one that imports a framework, without waiting for its reply.

        The next call waits for the reply and ignores it, errors included.
        """
        self._preparing += 1
        self._send(wire.encode(message, None))
        self._signal(signal.SIGCONT)

    def _reply(self, attempt: str, limit_s: float) -> tuple[Json, dict[str, np.ndarray]]:
        try:
            reply = self._replies.get(timeout=limit_s)
        except queue.Empty:
            self._kill()
            raise WorkerTimeoutError(
                f"The worker gave no answer to {attempt!r} in {limit_s:g} s; it was stopped.",
                hint="Give it longer with --timeout, or leave this runtime out.",
            ) from None
        if reply is None:
            raise self._died(attempt)
        return reply

    def _died(self, attempt: str) -> WorkerError:
        self._kill()
        code = self._process.returncode
        if code == -signal.SIGXCPU:
            return WorkerTimeoutError(
                f"The worker used up its processor time during {attempt!r}.",
                hint="Give it longer with --timeout.",
            )
        how = f"exit code {code}"
        hint = "Run the same with this runtime alone, to see whether it is the runtime."
        if code < 0:
            how = f"{signal.Signals(-code).name} (signal {-code})"
            if -code == signal.SIGKILL:
                hint = "It was killed from outside: by a person, or by the system for its memory."
        words = self._last_words()
        return WorkerDiedError(
            f"The worker died with {how} during {attempt!r}{': ' + words if words else ''}.",
            hint=hint,
        )

    def _last_words(self) -> str:
        """Return the last line that the worker wrote to standard error, or an empty string."""
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def _rest(self) -> None:
        """Suspend the worker, and wait until it has stopped.

        One of its threads takes the signal when it is next scheduled. Until then the others keep
        spinning for some milliseconds, which would disturb the process that is measured next.
        """
        self._signal(signal.SIGSTOP)
        if LINUX and self._process.returncode is None:
            with contextlib.suppress(ChildProcessError):
                # WNOWAIT leaves the status of an ended process to Popen.
                os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _signal(self, number: signal.Signals) -> None:
        """Suspend or resume the worker and its child processes. Has no effect except on Linux."""
        if LINUX and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _kill(self) -> None:
        """Kill the worker and its child processes, after a short wait in case it is ending."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=0.2)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Let the worker end by itself, or kill it after 2 s. May be called again."""
        if self._closed:
            return
        self._closed = self._broken = True
        self._signal(signal.SIGCONT)
        with contextlib.suppress(OSError):
            self._stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2)
        self._kill()
        self._reader.join(timeout=2)
        self._stdout.close()
        self._stderr.close()
        os.close(self._lifeline)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""The parent's end of a worker process."""

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
from toolkit.measuring import wire
from toolkit.measuring.prctl import LINUX
from toolkit.measuring.serving import Answers, Schedule
from toolkit.measuring.timing import Timed
from toolkit.measuring.wire import REPLY

# Read by the thread pools of torch, NumPy's BLAS, MKL and TensorFlow when they start.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)


def worker_environment(threads: int) -> dict[str, str]:
    """This process's environment, with the number of threads for every pool."""
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}


MOST_SECONDS = 1e6
PIPE_BYTES = 4096  # fit into the pipe of a worker that has answered everything


def check_timeout(seconds: float) -> None:
    """Raises UsageError for a time limit that no worker can keep."""
    if not 0 < seconds <= MOST_SECONDS:
        raise UsageError(
            f"Got a timeout of {seconds:g} s, expected more than 0.", hint="Give more seconds."
        )


@contextlib.contextmanager
def _running_on(cpus: frozenset[int] | None) -> Iterator[None]:
    """Pins this thread meanwhile: what it starts inherits the cores from its first instruction."""
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
    """What a worker says after it opened a session and ran it once."""

    computes: bool
    device: str
    artifact_digest: str
    opening: Opening


@final
class WorkerProcess:
    """A worker and the pipe to it. A context manager: leaving it ends the process.

    On Linux it is stopped (SIGSTOP) whenever nothing is asked of it: threads of a pool may spin for
    long after the last pass, ONNX Runtime's for more than 30 ms, and would take a core from
    whoever is measured next.

    `python` runs `module`, whose commands `ask` gives; those of toolkit.measuring.worker have
    methods of their own.

    Every call raises WorkerDiedError when the process is gone, WorkerTimeoutError (and kills it)
    when it does not answer in `timeout_s` seconds, and whatever ToolkitError it sends back.
    """

    def __init__(
        self,
        *,
        threads: int,
        timeout_s: float,
        cpus: frozenset[int] | None = None,
        python: str = sys.executable,
        module: str = "toolkit.measuring.worker",
    ) -> None:
        self._threads = threads
        self.timeout_s = timeout_s
        self._broken = self._closed = False
        self._preparing = 0  # commands whose replies nobody has waited for
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        # The worker ends as soon as nobody holds the other end of this pipe, however that came.
        lifeline, self._lifeline = os.pipe()
        with _running_on(cpus):
            self._process = subprocess.Popen(
                [python, "-P", "-m", module, str(lifeline)],
                pass_fds=(lifeline,),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=worker_environment(threads),
                # A session of its own: Ctrl-C is for the parent, kill() reaches what it started.
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
        """Blocks on the pipe, so that waiting takes no processor time from what is measured."""
        try:
            while (reply := wire.receive(self._stdout)) is not None:
                self._replies.put(reply)
        except (OSError, ValueError, FeedError):
            pass  # closed by close(), or not a frame: either way there is no more to come
        finally:
            self._replies.put(None)

    def _send(self, frame: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # gone or closed: _read reports it
            wire.send(self._stdin, frame)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def answers(self) -> bool:
        """Whether it can be asked anything: no call was broken off, and the process lives."""
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
        """Operations, or bytes for a copy, a second: see toolkit.measuring.peak."""
        message = {"command": "peak", "what": what, "threads": self._threads, "seconds": seconds}
        return float(self.ask(message)[0]["rate"])

    def open(
        self,
        runtime: str,
        artifacts: Sequence[Artifact],
        options: SessionOptions,
        feeds: Sequence[Feeds] = (),
        sessions: int = 1,
    ) -> Opened:
        """Opens the first artifact that the runtime accepts, once for each of `sessions`.

        `feeds` are kept for blocks and windows. What is told is of the first session.
        """
        message = {
            "command": "open",
            "runtime": runtime,
            "artifacts": encode(list(artifacts)),
            "options": encode(options),
            "sessions": sessions,
            "sets": len(feeds),
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
        """The outputs of one session, while all others run the same."""
        return self.ask({"command": "run", "session": session}, feeds)[1]

    def release(self) -> None:
        """Close the sessions, and free their memory; the process can open others."""
        self.ask({"command": "release"})

    def block(self, scope: Scope, count: int) -> Timed:
        """`count` timed runs."""
        message = {"command": "block", "scope": scope, "count": count}
        reply, arrays = self.ask(message)
        return Timed(samples=arrays["samples"], rss_bytes=reply["rss_bytes"])

    def window(self, schedule: Schedule) -> Answers:
        """Queries answered as they come, see `serving.answer`; `timeout_s` begins at its end."""
        message = {
            "command": "window",
            "clients": schedule.clients,
            "most_queries": schedule.most_queries,
            "most_ns": schedule.most_ns,
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
        """The reply to a command. `planned_s` comes on top of the time that it may take."""
        attempt = message["command"]
        limit_s = planned_s + self.timeout_s
        if self._broken:
            raise WorkerDiedError(
                f"{attempt!r} was asked of a worker that is closed, or whose last call was broken "
                "off.",
                hint="Start another worker.",
            )
        frame = wire.encode(message, arrays)
        self._broken = True  # until the reply is here: Ctrl-C can end the wait at any point
        for _ in range(self._preparing):
            self._reply(attempt, limit_s)
        self._preparing = 0
        if len(frame) <= PIPE_BYTES:
            self._send(frame)
            self._signal(signal.SIGCONT)
        else:  # from a thread, since a worker that hangs does not empty its pipe
            self._signal(signal.SIGCONT)
            threading.Thread(target=self._send, args=(frame,), daemon=True).start()
        reply = self._reply(attempt, limit_s)
        self._broken = False
        self._rest()
        if not reply[0]["ok"]:
            raise from_wire(reply[0])
        return reply

    def prepare(self, message: Json) -> None:
        """Send a command, such as one that imports a framework, and do not wait for its end. The
        next call does; an error is left to it."""
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
        """The last line that the worker wrote to standard error."""
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def _rest(self) -> None:
        """Stops the worker, and waits until it stands still.

        The signal alone is taken by one of its threads, when that is next given a core: until
        then the others go on spinning, beside whoever is measured next, for some milliseconds.
        """
        self._signal(signal.SIGSTOP)
        if LINUX and self._process.returncode is None:
            with contextlib.suppress(ChildProcessError):
                # Leaves the status of one that ended to Popen.
                os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _signal(self, number: signal.Signals) -> None:
        """Stops the worker and what it started, or lets them go on."""
        if LINUX and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _kill(self) -> None:
        """Ends the worker and whatever it started. Waits first for one that is ending by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=0.2)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Lets the worker end by itself, then makes sure. May be called again."""
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

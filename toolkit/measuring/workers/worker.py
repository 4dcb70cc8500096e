"""Worker process: one runtime and its sessions, with commands over standard input and output.

Started as `python -P -m toolkit.measuring.workers.worker`: see process.py.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np

from runtimes import RUNTIMES
from toolkit.core.artifact import Artifact
from toolkit.core.codec import decode, encode
from toolkit.core.documents import Json
from toolkit.core.errors import (
    SessionError,
    UnavailableError,
    UsageError,
    WorkerError,
)
from toolkit.core.measurement import Scope
from toolkit.core.memory import collect, peak_rss_bytes, rss_bytes
from toolkit.core.session import Runtime, Session, SessionOptions, open_session
from toolkit.core.specs import Feeds, Signature, convert_feeds
from toolkit.measuring.load_test.load_generator import Schedule, answer, together
from toolkit.measuring.machine.peak_kernels import peak_rate
from toolkit.measuring.timing.clock import time_block
from toolkit.measuring.timing.memory import watched
from toolkit.measuring.timing.placement import begin_on
from toolkit.measuring.workers.process import Reply, run
from toolkit.measuring.workers.wire import MESSAGE


@final
class Worker:
    """State of the process between commands."""

    def __init__(self) -> None:
        self._sessions: list[Session] = []
        self._feeds: list[Feeds] = []
        self._count = 0
        self._settled = False
        # Feeds arrive in the layout of the first artifact; sessions take that of the opened one.
        self._given = self._taken = Signature(inputs=(), outputs=())

    def handle(self, message: Json, arrays: Mapping[str, np.ndarray]) -> Reply:
        command = message["command"]
        begin_on(message.get("core"))
        if command == "probe":
            return self._probe(message["runtime"]), {}
        if command == "open":
            return self._open(message, arrays), {}
        if command == "peak":
            return _peak(message), {}
        if command == "release":
            self._release()
            return {}, {}
        if not self._sessions:
            raise SessionError(f"{command!r} came before a session was opened.", hint="Open one.")
        first = self._sessions[0]
        if command == "run":
            feeds = convert_feeds(arrays, self._given, self._taken)
            outputs = together(self._sessions, lambda session: session.run(feeds))
            return {}, outputs[message["session"]]
        if command == "block":
            samples = self._block(first, message)
            return {"rss_bytes": rss_bytes()}, {"samples": samples}
        if command == "window":
            return {}, self._window(message, arrays)
        if command == "provenance":
            return {"provenance": encode(first.provenance())}, {}
        if command == "memory":
            return {"peak_rss_bytes": peak_rss_bytes()}, {}
        raise WorkerError(f"The worker knows no command {command!r}.", hint="This is a bug.")

    def _probe(self, name: str) -> Json:
        availability = RUNTIMES.create(name).probe()
        return {
            "ok_here": availability.ok,
            "version": availability.version,
            "reason": availability.reason,
            "hint": availability.hint,
        }

    def _open(self, message: Json, arrays: Mapping[str, np.ndarray]) -> Json:
        """Import the runtime, open a session and run it once, then open the other sessions.

        The duration and the memory growth of the first three steps are measured.
        """
        self._feeds = _unpack_sets(message["sets"], arrays)
        opening: dict[str, int | None] = {}
        with watched("import", opening, time.perf_counter_ns):
            runtime = RUNTIMES.create(message["runtime"])
            availability = runtime.probe()
        if not availability.ok:
            raise UnavailableError(
                f"{runtime.name} cannot be used here: {availability.reason}.",
                hint=availability.hint or "See `toolkit doctor`.",
            )
        options = decode(message["options"], SessionOptions, MESSAGE)
        self._release()
        gc.freeze()  # exempts imports, so that a release only collects what was opened
        with watched("open", opening, time.perf_counter_ns):
            artifacts = decode(message["artifacts"], list[Artifact], MESSAGE)
            artifact = _choose(runtime, artifacts)
            self._given, self._taken = artifacts[0].signature, artifact.signature
            self._feeds = [convert_feeds(feeds, self._given, self._taken) for feeds in self._feeds]
            session = open_session(runtime, artifact, options)
        with watched("first_run", opening, time.perf_counter_ns):
            if self._feeds:
                session.run(self._feeds[0])
        self._sessions = [session]
        for _ in range(1, message["sessions"]):
            self._sessions.append(open_session(runtime, artifact, options))
        return {
            "computes": runtime.computes,
            "device": runtime.device,
            "artifact": artifact.digest,
            "opening": opening,
        }

    def _release(self) -> None:
        """Close the sessions and free their memory."""
        if not self._sessions:
            return
        while self._sessions:  # so that no variable refers to a session
            self._sessions.pop().close()
        if self._settled:
            gc.unfreeze()
            self._settled = False
        collect()

    def _settle(self) -> None:
        """Exempt what was opened and imported from the garbage collection before each block."""
        if not self._settled:
            gc.freeze()
            self._settled = True

    def _block(self, session: Session, message: Json) -> np.ndarray:
        if not self._feeds:
            raise SessionError("A block was asked for without inputs.", hint="Open with feeds.")
        self._settle()
        count = message["count"]
        samples = time_block(
            session,
            Scope(message["scope"]),
            self._feeds,
            count,
            self._count,
            time.perf_counter_ns,
        )
        self._count += count
        return samples

    def _window(self, message: Json, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._settle()
        schedule = Schedule(
            clients=message["clients"],
            most_queries=message["most_queries"],
            most_ns=message["most_ns"],
            arrivals=arrays.get("arrivals"),
        )
        return vars(answer(self._sessions, self._feeds, schedule))


def _peak(message: Json) -> Json:
    what, threads, seconds = message["what"], message["threads"], message["seconds"]
    return {"rate": peak_rate(what, threads, seconds, time.perf_counter_ns)}


def _choose(runtime: Runtime, artifacts: Sequence[Artifact]) -> Artifact:
    """Return the first artifact in a format that the runtime accepts. Raises UsageError if none."""
    for artifact in artifacts:
        if artifact.format in runtime.accepts:
            return artifact
    got = ", ".join(f"{artifact.format} ({artifact.path})" for artifact in artifacts)
    raise UsageError(
        f"{runtime.name} takes {' or '.join(sorted(runtime.accepts))}; got {got}.",
        hint="Name an artifact whose parent checkpoint is in its place, or another runtime.",
    )


def _unpack_sets(count: int, arrays: Mapping[str, np.ndarray]) -> list[Feeds]:
    """Return `count` sets of inputs from arrays named `<set>/<input>`."""
    sets: list[dict[str, np.ndarray]] = [{} for _ in range(count)]
    for key, array in arrays.items():
        index, _, name = key.partition("/")
        sets[int(index)][name] = array
    return list(sets)


if __name__ == "__main__":
    run(Worker())

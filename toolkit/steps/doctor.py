"""What can run here, and what to do about what cannot."""

from __future__ import annotations

from dataclasses import dataclass

from runtimes import RUNTIMES
from toolkit.core.documents import Json
from toolkit.core.errors import ToolkitError
from toolkit.core.measurement import Status
from toolkit.core.progress import Progress, Silent
from toolkit.measuring.client import WorkerProcess
from toolkit.measuring.environment import describe_environment

PROBE_TIMEOUT_S = 120


@dataclass(frozen=True, kw_only=True)
class RuntimeInfo:
    name: str
    status: Status
    version: str | None = None
    reason: str | None = None
    hint: str | None = None

    def to_json(self) -> Json:
        return {
            "name": self.name,
            "status": self.status,
            "version": self.version,
            "reason": self.reason,
            "hint": self.hint,
        }


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    runtimes: tuple[RuntimeInfo, ...]
    environment: Json

    def to_json(self) -> Json:
        return {
            "schema": "toolkit.doctor/1",
            "runtimes": [runtime.to_json() for runtime in self.runtimes],
            "environment": self.environment,
        }


def doctor(*, progress: Progress | None = None) -> Diagnosis:
    """Probes every runtime in a process of its own, so that one that crashes costs one line."""
    listener = progress or Silent()
    names = RUNTIMES.names()
    infos = []
    for done, name in enumerate(names):
        infos.append(_probe(name))
        listener.update("probe runtimes", done + 1, len(names), name)
    return Diagnosis(runtimes=tuple(infos), environment=describe_environment())


def _probe(name: str) -> RuntimeInfo:
    try:
        with WorkerProcess(threads=1, timeout_s=PROBE_TIMEOUT_S) as worker:
            found = worker.probe(name)
    except ToolkitError as error:
        return RuntimeInfo(
            name=name, status=Status.UNAVAILABLE, reason=error.problem, hint=error.hint
        )
    return RuntimeInfo(
        name=name,
        status=Status.OK if found.ok else Status.UNAVAILABLE,
        version=found.version,
        reason=found.reason,
        hint=found.hint,
    )

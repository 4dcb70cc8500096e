"""Diagnose which runtimes can run here, and how to fix those that cannot."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from runtimes import RUNTIMES
from toolkit.core.codec import encode
from toolkit.core.documents import Json
from toolkit.core.errors import (
    ToolkitError,
    UsageError,
    WorkerDiedError,
    WorkerError,
    WorkerTimeoutError,
)
from toolkit.core.measurement import Status
from toolkit.core.nvidia import Conflict, conflicts
from toolkit.core.progress import Progress, Silent
from toolkit.measuring.figures.warnings import load_warnings
from toolkit.measuring.machine.environment import describe_environment, session_options
from toolkit.measuring.machine.peak_kernels import COPY, PRECISIONS
from toolkit.measuring.machine.roofline import (
    Ceilings,
    absent_instructions,
    prepare,
    store,
    stored,
    stored_threads,
)
from toolkit.measuring.timing.cpu_contention import LoadMeter
from toolkit.measuring.workers.client import WorkerProcess
from toolkit.sources.runtime_selection import PROBE_TIMEOUT_S, probe

PEAK_SECONDS = 2.0  # per precision, and for copies


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
    """Diagnosis of this machine.

    `conflicts` are installed packages that exclude each other. `ceilings` are the stored peak
    FLOP/s and bandwidths of this machine, one entry per number of threads.
    """

    runtimes: tuple[RuntimeInfo, ...]
    conflicts: tuple[Conflict, ...]
    environment: Json
    ceilings: tuple[Ceilings, ...]

    def to_json(self) -> Json:
        return {
            "schema": "toolkit.doctor/1",
            "runtimes": [runtime.to_json() for runtime in self.runtimes],
            "conflicts": [conflict.to_json() for conflict in self.conflicts],
            "environment": self.environment,
            "ceilings": encode(self.ceilings),
        }


def doctor(
    *, ceilings: bool = False, threads: int | None = None, progress: Progress | None = None
) -> Diagnosis:
    """Probe every runtime, each in its own process, so that a crash affects only one.

    As many are probed at a time as there are cores. With `ceilings`, the peak FLOP/s and bandwidth
    of this machine are measured with `threads` threads (by default one per core), and stored in the
    user's cache directory, where `bench` finds them. Without it, nothing is written. Raises
    UsageError for `threads` without `ceilings`, and ToolkitError if the peaks cannot be stored.
    """
    if threads is not None and not ceilings:
        raise UsageError(
            f"Got {threads} threads, and no ceilings to measure with them.",
            hint="Give --ceilings as well, or leave --threads out.",
        )
    listener = progress or Silent()
    count = session_options(threads).threads
    environment = describe_environment()
    cpu = environment["cpu"]
    if ceilings:
        prepare(cpu)
    infos = _probed(cpu["available_cores"] or 1, listener)
    if ceilings:
        store(_measure_ceilings(count, cpu, listener), cpu)
    return Diagnosis(
        runtimes=tuple(infos),
        conflicts=tuple(conflicts()),
        environment=environment,
        ceilings=tuple(_known_ceilings(cpu, listener)),
    )


def _probed(at_a_time: int, progress: Progress) -> list[RuntimeInfo]:
    """Probe all runtimes, and return the results in the order of the registry."""
    names, infos = RUNTIMES.names(), []
    pool = ThreadPoolExecutor(max_workers=at_a_time)
    try:
        for info in pool.map(_info, names):
            infos.append(info)
            progress.update("probe runtimes", len(infos), len(names), info.name)
    finally:
        pool.shutdown(cancel_futures=True)
    return infos


def _measure_ceilings(threads: int, cpu: Json, progress: Progress) -> Ceilings:
    """Measure the peak bandwidth, and the peak FLOP/s of each supported precision.

    A precision is supported if the processor has instructions and torch a matrix product for it.
    """
    absent = {name: why for name in PRECISIONS if (why := absent_instructions(name, cpu))}
    wanted = [name for name in PRECISIONS if name not in absent]
    rates = {}
    task = f"measure ceilings, {threads} threads"
    with WorkerProcess(threads=threads, timeout_s=PROBE_TIMEOUT_S) as worker:
        meter = LoadMeter([worker.pid])
        copy = worker.peak(COPY, PEAK_SECONDS)
        progress.update(task, 1, 1 + len(wanted), COPY)
        for done, precision in enumerate(wanted, 2):
            try:
                rates[precision] = worker.peak(precision, PEAK_SECONDS)
            except (WorkerDiedError, WorkerTimeoutError):
                raise
            except WorkerError as error:
                absent[precision] = error.problem
            progress.update(task, done, 1 + len(wanted), precision)
        for warning in load_warnings("ceilings", meter.read()):
            progress.note(f"warning: {warning}")
    return Ceilings(
        threads=threads,
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        operations_per_second=rates,
        absent=absent,
        copy_bytes_per_second=copy,
    )


def _known_ceilings(cpu: Json, progress: Progress) -> Iterator[Ceilings]:
    for threads in stored_threads(cpu):
        try:
            found = stored(cpu, threads)
        except ToolkitError as error:
            again = f"toolkit doctor --ceilings --threads {threads}"
            progress.note(f"warning: {error.problem} Measure them again: {again}")
        else:
            if found is not None:
                yield found


def _info(name: str) -> RuntimeInfo:
    found = probe(name)
    return RuntimeInfo(
        name=name,
        status=Status.OK if found.ok else Status.UNAVAILABLE,
        version=found.version,
        reason=found.reason,
        hint=found.hint,
    )

"""Measure an artifact on several runtimes, side by side."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import final

from toolkit.core.artifact import Artifact
from toolkit.core.documents import Json
from toolkit.core.errors import ToolkitError, UnavailableError, UsageError, unknown_name
from toolkit.core.interrupts import Interrupts
from toolkit.core.measurement import Result, Row, Scope, Status
from toolkit.core.progress import Progress, Silent
from toolkit.core.session import SessionOptions
from toolkit.core.specs import Feeds, Outputs
from toolkit.measuring.client import WorkerProcess, check_timeout
from toolkit.measuring.engine import Lane, Procedure, measure
from toolkit.measuring.environment import describe_environment, session_options
from toolkit.measuring.load import LoadMeter
from toolkit.measuring.warnings import load_warnings, machine_warnings, row_warnings
from toolkit.parity.outputs import combine, compare_outputs
from toolkit.parity.tolerances import tolerance_for
from toolkit.results import store
from toolkit.steps.inputs import InputRequest, InputSource, input_source, resolve_batches
from toolkit.steps.reference import reference_runtime, reference_worker
from toolkit.steps.sources import absent_parent, candidates, known_runtimes, open_artifact

OPENINGS = 5


def bench(
    artifact: str | os.PathLike[str],
    *,
    runtimes: Sequence[str] | None = None,
    batches: Sequence[int] | None = None,
    scopes: Sequence[str] = (Scope.FORWARD, Scope.END_TO_END),
    threads: int | None = None,
    cpus: Collection[int] | None = None,
    tuning: Mapping[str, Mapping[str, str]] | None = None,
    procedure: Procedure | None = None,
    inputs: InputRequest | None = None,
    timeout_s: float = 300.0,
    out: str | os.PathLike[str] = "results",
    progress: Progress | None = None,
) -> Result:
    """Measures every runtime at every batch, and stores the result as `out/<id>.json`.

    Without `runtimes`, all but null are measured; without `batches`, the one that the model or
    `inputs` fix, else 1. `cpus` pins every worker to these cores; `tuning` gives options of a
    runtime's own by its name. The rows of a batch are measured in turn, a block each, in a process
    each. A row that fails keeps its reason and what was measured; the
    others go on. Ctrl-C stores what there is, then raises KeyboardInterrupt. Raises SourceError,
    IntegrityError, UnknownNameError, UsageError before anything is started.
    """
    asked = _parse_scopes(scopes)
    names = known_runtimes(runtimes)
    pinned = None if cpus is None else frozenset(cpus)
    options = session_options(threads, pinned)
    for name in tuning or {}:
        if name not in names:
            raise unknown_name("runtime in this run", name, names)
    check_timeout(timeout_s)
    source = open_artifact(artifact)
    request = inputs or InputRequest()
    feeding = input_source(source, request)
    sizes = resolve_batches(source, batches, request.dims)
    for batch in sizes:
        feeding.sets(batch)  # refused now rather than after other batches were measured
    store.prepare(Path(out))
    run = _Run(
        artifacts=candidates(source),
        inputs=feeding,
        scopes=asked,
        options=options,
        cpus=pinned,
        tuning=tuning or {},
        procedure=procedure or Procedure(),
        timeout_s=timeout_s,
        progress=progress or Silent(),
    )
    created = datetime.now(UTC)
    environment = describe_environment(options.threads)
    warnings = machine_warnings(options.threads, environment)
    if absent := absent_parent(source):
        warnings.append(absent)
    rows: list[Row] = []
    broken_off: BaseException | None = None
    try:
        for batch in sizes:
            run.measure_batch(batch, names, rows)
    except (KeyboardInterrupt, Exception) as error:
        broken_off = error
        how = "Ctrl-C" if isinstance(error, KeyboardInterrupt) else type(error).__name__
        warnings.insert(0, f"Interrupted by {how}: the rows are what was measured until then.")
    result = Result(
        id=f"{created:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
        created=created.isoformat(timespec="seconds"),
        plan={"runtimes": names, "batches": sizes, **run.plan()},
        rows=tuple(rows),
        environment=environment,
        warnings=(*warnings, *run.warnings, *row_warnings(rows, run.procedure)),
    )
    try:
        if rows:
            path = store.save(Path(out), result)
            if broken_off is not None:
                run.progress.note(f"Interrupted; what was measured until then lies in {path}")
    finally:
        run.interrupts.release()
    if broken_off is not None:
        raise broken_off
    return result


@final
@dataclass(kw_only=True)
class _Contender:
    """A row while it is measured; `worker` and `lane` are None where it could not be opened."""

    row: Row
    worker: WorkerProcess | None = None
    lane: Lane | None = None

    def fail(self, error: ToolkitError) -> None:
        missing = isinstance(error, UnavailableError)
        self.row = replace(
            self.row,
            status=Status.UNAVAILABLE if missing else Status.FAILED,
            reason=f"{error.problem} {error.hint}",
        )

    def finish(self) -> Row:
        """The row with all that was measured; ends the worker."""
        if self.worker is None:
            return self.row
        with self.worker:
            if self.lane is not None:
                self.row = replace(self.row, measurements=self.lane.measurements())
                if self.lane.failure is not None:
                    self.fail(self.lane.failure)
            with contextlib.suppress(ToolkitError):  # a worker that died has no memory to tell
                self.row = replace(self.row, peak_rss_bytes=self.worker.peak_rss_bytes())
        return self.row


@final
@dataclass(kw_only=True)
class _Run:
    """One call of `bench`: everything that its batches share."""

    artifacts: Sequence[Artifact]
    inputs: InputSource
    scopes: Sequence[Scope]
    options: SessionOptions
    cpus: frozenset[int] | None
    tuning: Mapping[str, Mapping[str, str]]
    procedure: Procedure
    timeout_s: float
    progress: Progress
    warnings: list[str] = field(default_factory=list)
    interrupts: Interrupts = field(default_factory=Interrupts)

    def plan(self) -> Json:
        """What the rows share, as it is stored."""
        return {
            "artifact": str(self.artifacts[0].path),
            "artifact_digest": self.artifacts[0].digest,
            "scopes": list(self.scopes),
            "inputs": self.inputs.description,
            "options": self.options.to_json(),
            "cpus": sorted(self.cpus) if self.cpus else None,
            "tuning": {name: dict(values) for name, values in self.tuning.items()},
            "procedure": self.procedure.to_json(),
            "timeout_s": self.timeout_s,
        }

    def measure_batch(self, batch: int, runtimes: Sequence[str], rows: list[Row]) -> None:
        """Opens every runtime, then measures all in turn; adds a row for each to `rows`.

        The rows are added, with what they came to, however the block is left.
        """
        contenders: list[_Contender] = []
        try:
            feeds = self.inputs.sets(batch)
            expected = self._reference(feeds)
            for done, runtime in enumerate(runtimes):
                contenders.append(_Contender(row=self._new_row(runtime, batch)))
                self._open(contenders[-1], feeds, expected)
                self.progress.update(f"open, batch {batch}", done + 1, len(runtimes), runtime)
            lanes = [contender.lane for contender in contenders if contender.lane]
            for done, scope in enumerate(self.scopes):
                if scope is Scope.OPEN:
                    self._repeat_openings(contenders, feeds)
                else:
                    meter = LoadMeter([c.worker.pid for c in contenders if c.worker])
                    measure(lanes, scope, self.procedure, time.monotonic_ns)
                    self.warnings += load_warnings(f"batch {batch}, {scope}", meter.read())
                self.progress.update(f"measure, batch {batch}", done + 1, len(self.scopes), scope)
        except KeyboardInterrupt:
            self.interrupts.hold()  # a second Ctrl-C would lose what the first one keeps
            raise
        finally:
            rows.extend(contender.finish() for contender in contenders)

    def _new_row(self, runtime: str, batch: int) -> Row:
        source = self.artifacts[0]
        return Row(
            runtime=runtime,
            artifact=str(source.path),
            artifact_digest=source.digest,
            batch=batch,
            status=Status.OK,
            precision_requested=source.precision,
            tuning=dict(self.tuning.get(runtime, {})),
        )

    def _reference(self, feeds: Sequence[Feeds]) -> list[Outputs] | None:
        """The reference's outputs for each set; None, with a warning, when it cannot run."""
        try:
            with reference_worker(
                self.artifacts, threads=self.options.threads, timeout_s=self.timeout_s
            ) as worker:
                return [worker.run(one) for one in feeds]
        except ToolkitError as error:
            warning = f"No parity: the reference failed. {error.problem} {error.hint}"
            if warning not in self.warnings:
                self.warnings.append(warning)
            return None

    def _open(
        self, contender: _Contender, feeds: Sequence[Feeds], expected: list[Outputs] | None
    ) -> None:
        """Starts the worker; parity and provenance come before any timing.

        A row that fails either is still timed, so that one sees what the wrong answer costs; its
        status keeps it from being compared.
        """
        runtime = contender.row.runtime
        try:
            worker = contender.worker = self._start_worker()
            opened = worker.open(runtime, self.artifacts, self._options(runtime), feeds)
            provenance = worker.provenance()
            contender.row = replace(
                contender.row,
                artifact_digest=opened.artifact_digest,
                computes=opened.computes,
                openings=(opened.opening,),
                provenance=provenance,
            )
            if opened.computes:
                self._check(contender, worker, feeds, expected)
            comparable = contender.row.computes and contender.row.status is Status.OK
            contender.lane = Lane(probe=worker, compared=comparable)
        except ToolkitError as error:
            contender.fail(error)

    def _repeat_openings(self, contenders: Sequence[_Contender], feeds: Sequence[Feeds]) -> None:
        """OPENINGS openings of each row, each in a new process, the rows in turn."""
        for _ in range(OPENINGS - 1):
            for contender in contenders:
                if contender.lane is None or contender.lane.failure is not None:
                    continue
                row = contender.row
                with contender.lane.keeping_failure(), self._start_worker() as worker:
                    opened = worker.open(
                        row.runtime, self.artifacts, self._options(row.runtime), feeds[:1]
                    )
                    contender.row = replace(row, openings=(*row.openings, opened.opening))

    def _start_worker(self) -> WorkerProcess:
        return WorkerProcess(threads=self.options.threads, timeout_s=self.timeout_s, cpus=self.cpus)

    def _options(self, runtime: str) -> SessionOptions:
        return replace(self.options, tuning=self.tuning.get(runtime, {}))

    def _check(
        self,
        contender: _Contender,
        worker: WorkerProcess,
        feeds: Sequence[Feeds],
        expected: list[Outputs] | None,
    ) -> None:
        """Fails the row when its outputs or its precision are not what was asked for."""
        row = contender.row
        reasons = []
        if expected is not None:
            tolerance = tolerance_for(row.precision_requested)
            parity = combine(
                [
                    compare_outputs(worker.run(one), reference, tolerance)
                    for one, reference in zip(feeds, expected, strict=True)
                ]
            )
            row = replace(row, parity=parity)
            if not parity.passed:
                reasons.append(f"Parity with {reference_runtime(self.artifacts)}: {parity.reason}.")
        ran = row.provenance.precision if row.provenance else "none"
        if ran not in ("none", row.precision_requested):
            reasons.append(f"Asked for {row.precision_requested}, ran in {ran}.")
        if reasons:
            row = replace(row, status=Status.FAILED, reason=" ".join(reasons))
        contender.row = row


def _parse_scopes(scopes: Sequence[str]) -> tuple[Scope, ...]:
    if not scopes:
        raise UsageError("Got no scopes.", hint="Give forward, end_to_end or open.")
    known = [scope.value for scope in Scope]
    for scope in scopes:
        if scope not in known:
            raise unknown_name("scope", scope, known)
    return tuple(Scope(scope) for scope in dict.fromkeys(scopes))

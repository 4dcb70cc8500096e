"""Rows that are measured in turn: what `bench` and `compare` share."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import final

from toolkit.core.artifact import Artifact
from toolkit.core.documents import Json
from toolkit.core.errors import ToolkitError, UnavailableError
from toolkit.core.interrupts import Interrupts
from toolkit.core.measurement import Result, Row, Scope, Status
from toolkit.core.progress import Progress
from toolkit.core.specs import Feeds, Outputs
from toolkit.measuring.client import WorkerProcess
from toolkit.measuring.engine import Lane, measure
from toolkit.measuring.environment import describe_environment
from toolkit.measuring.load import LoadMeter
from toolkit.measuring.warnings import load_warnings, machine_warnings, row_warnings
from toolkit.parity.outputs import combine, compare_outputs
from toolkit.parity.tolerances import tolerance_for
from toolkit.results import store
from toolkit.steps.inputs import InputSource
from toolkit.steps.reference import reference_runtime, reference_worker
from toolkit.steps.settings import Settings
from toolkit.steps.work import work_of

OPENINGS = 5


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row to measure: the runtime opens the first of `artifacts` whose format it takes."""

    artifacts: Sequence[Artifact]
    runtime: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that are measured in turn on the same inputs; the first is the others' baseline."""

    batch: int
    inputs: InputSource
    entries: Sequence[Entry]


def measure_groups(
    groups: Sequence[Group],
    settings: Settings,
    *,
    plan: Json,
    out: Path,
    progress: Progress,
    warnings: Sequence[str] = (),
) -> Result:
    """Measures every group, and stores the result as `out/<id>.json`.

    A row that fails keeps its reason and what was measured; the others go on. Ctrl-C stores what
    there is, then raises KeyboardInterrupt. Raises UsageError for inputs that do not fit, before
    anything is started.
    """
    for group in groups:
        group.inputs.sets(group.batch)  # refused now rather than after others were measured
    store.prepare(out)
    run = _Run(settings=settings, progress=progress)
    created = datetime.now(UTC)
    environment = describe_environment(settings.options.threads)
    before = [*machine_warnings(settings.options.threads, environment), *warnings]
    rows: list[Row] = []
    broken_off: BaseException | None = None
    try:
        for number, group in enumerate(groups):
            run.measure_group(number, group, rows)
    except (KeyboardInterrupt, Exception) as error:
        broken_off = error
        how = "Ctrl-C" if isinstance(error, KeyboardInterrupt) else type(error).__name__
        before.insert(0, f"Interrupted by {how}: the rows are what was measured until then.")
    result = Result(
        id=f"{created:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
        created=created.isoformat(timespec="seconds"),
        plan={**plan, **settings.to_json()},
        rows=tuple(rows),
        environment=environment,
        warnings=(*before, *run.warnings, *row_warnings(rows, settings.procedure)),
    )
    try:
        if rows:
            path = store.save(out, result)
            if broken_off is not None:
                progress.note(f"Interrupted; what was measured until then lies in {path}")
    finally:
        run.interrupts.release()
    if broken_off is not None:
        raise broken_off
    return result


@final
@dataclass(kw_only=True)
class _Contender:
    """A row while it is measured; `worker` and `lane` are None where it could not be opened."""

    entry: Entry
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
    """One call: everything that its groups share."""

    settings: Settings
    progress: Progress
    warnings: list[str] = field(default_factory=list)
    interrupts: Interrupts = field(default_factory=Interrupts)

    def measure_group(self, number: int, group: Group, rows: list[Row]) -> None:
        """Opens every row, then measures all in turn; adds them to `rows`.

        They are added, with what they came to, however the group is left.
        """
        contenders: list[_Contender] = []
        batch = group.batch
        try:
            feeds = group.inputs.sets(batch)
            references: dict[str, list[Outputs] | None] = {}
            for done, entry in enumerate(group.entries):
                source = entry.artifacts[0]
                if source.digest not in references:
                    references[source.digest] = self._reference(entry.artifacts, feeds)
                row = self._new_row(entry, number, batch, feeds[0])
                contenders.append(_Contender(entry=entry, row=row))
                self._open(contenders[-1], feeds, references[source.digest])
                total = len(group.entries)
                self.progress.update(f"open, batch {batch}", done + 1, total, entry.runtime)
            lanes = [contender.lane for contender in contenders if contender.lane]
            for done, scope in enumerate(self.settings.scopes):
                if scope is Scope.OPEN:
                    self._repeat_openings(contenders, feeds)
                else:
                    meter = LoadMeter([c.worker.pid for c in contenders if c.worker])
                    measure(lanes, scope, self.settings.procedure, time.monotonic_ns)
                    self.warnings += load_warnings(f"batch {batch}, {scope}", meter.read())
                total = len(self.settings.scopes)
                self.progress.update(f"measure, batch {batch}", done + 1, total, scope)
        except KeyboardInterrupt:
            self.interrupts.hold()  # a second Ctrl-C would lose what the first one keeps
            raise
        finally:
            rows.extend(contender.finish() for contender in contenders)

    def _new_row(self, entry: Entry, group: int, batch: int, feeds: Feeds) -> Row:
        source = entry.artifacts[0]
        return Row(
            group=group,
            runtime=entry.runtime,
            artifact=str(source.path),
            artifact_digest=source.digest,
            batch=batch,
            status=Status.OK,
            precision_requested=source.precision,
            tuning=dict(self.settings.tuning.get(entry.runtime, {})),
            work=work_of(entry.artifacts, feeds, self.warnings),
        )

    def _reference(
        self, artifacts: Sequence[Artifact], feeds: Sequence[Feeds]
    ) -> list[Outputs] | None:
        """The reference's outputs for each set; None, with a warning, when it cannot run."""
        settings = self.settings
        try:
            with reference_worker(
                artifacts, threads=settings.options.threads, timeout_s=settings.timeout_s
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
        entry = contender.entry
        try:
            worker = contender.worker = self._start_worker()
            options = self.settings.of(entry.runtime)
            opened = worker.open(entry.runtime, entry.artifacts, options, feeds)
            provenance = worker.provenance()
            contender.row = replace(
                contender.row,
                artifact_digest=opened.artifact_digest,
                computes=opened.computes,
                openings=(opened.opening,),
                provenance=provenance,
            )
            if opened.computes:
                _check(contender, worker, feeds, expected)
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
                entry, row = contender.entry, contender.row
                with contender.lane.keeping_failure(), self._start_worker() as worker:
                    options = self.settings.of(entry.runtime)
                    opened = worker.open(entry.runtime, entry.artifacts, options, feeds[:1])
                    contender.row = replace(row, openings=(*row.openings, opened.opening))

    def _start_worker(self) -> WorkerProcess:
        settings = self.settings
        return WorkerProcess(
            threads=settings.options.threads, timeout_s=settings.timeout_s, cpus=settings.cpus
        )


def _check(
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
            reference_name = reference_runtime(contender.entry.artifacts)
            reasons.append(f"Parity with {reference_name}: {parity.reason}.")
    ran = row.provenance.precision if row.provenance else "none"
    if ran not in ("none", row.precision_requested):
        reasons.append(f"Asked for {row.precision_requested}, ran in {ran}.")
    if reasons:
        row = replace(row, status=Status.FAILED, reason=" ".join(reasons))
    contender.row = row

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
from toolkit.measuring.capacity import find_rates
from toolkit.measuring.client import WorkerProcess
from toolkit.measuring.engine import Lane, measure
from toolkit.measuring.environment import describe_environment
from toolkit.measuring.load import LoadMeter
from toolkit.measuring.traffic import Traffic, TrafficLane, serve
from toolkit.measuring.traffic_warnings import traffic_warnings
from toolkit.measuring.warnings import load_warnings, machine_warnings, row_warnings
from toolkit.results import store
from toolkit.steps.checks import agreement, bounds_for, fallback_of, judged
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
    machine = machine_warnings(settings.options.threads, environment, settings.clients)
    before = [*machine, *warnings]
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
        warnings=(
            *before,
            *run.warnings,
            *row_warnings(rows, settings.procedure),
            *traffic_warnings(rows),
        ),
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
    """A row while it is measured; `worker` and `lane` are None where it could not be opened.

    `expected` are the reference's outputs for each of `feeds`, None where it could not run.
    """

    entry: Entry
    row: Row
    feeds: Sequence[Feeds]
    expected: list[Outputs] | None
    clients: int
    worker: WorkerProcess | None = None
    lane: Lane | None = None
    warnings: list[str] = field(default_factory=list)
    broken: bool = False

    def fail(self, error: ToolkitError) -> None:
        """Ends the row with the reason, which nothing that is found out later changes."""
        self.broken = True
        missing = isinstance(error, UnavailableError)
        self.row = replace(
            self.row,
            status=Status.UNAVAILABLE if missing else Status.FAILED,
            reason=f"{error.problem} {error.hint}",
        )

    def check_outputs(self, worker: WorkerProcess, precision: str) -> None:
        """Fails the row whose outputs are not the reference's."""
        if self.expected is not None and self.row.computes:
            parity = agreement(worker.run, self.feeds, self.expected, precision, self.clients)
            self.row = self._judged(replace(self.row, parity=parity))

    def finish(self, *, allow_fallback: bool) -> None:
        """Completes the row with what was measured, then with what really ran; ends the worker."""
        if self.worker is None:
            return
        with self.worker as worker:
            if self.lane is not None:
                self.row = replace(self.row, measurements=self.lane.measurements())
                if self.lane.failure is not None:
                    self.fail(self.lane.failure)
                if worker.answers:
                    self._ask(worker, allow_fallback)

    def _ask(self, worker: WorkerProcess, allow_fallback: bool) -> None:
        """Memory, then provenance, since to tell it takes memory and time of its own."""
        try:
            self.row = replace(self.row, peak_rss_bytes=worker.peak_rss_bytes())
            self.row = replace(self.row, provenance=worker.provenance())
            if self.lane is not None and not self.broken:
                self._hold_to_request(worker, allow_fallback)
        except ToolkitError as error:
            if self.row.status is Status.OK:
                self.fail(error)

    def _hold_to_request(self, worker: WorkerProcess, allow_fallback: bool) -> None:
        fallback = fallback_of(self.row)
        if fallback is None:
            return
        if allow_fallback:
            bounds = bounds_for(self.row)
            self.warnings.append(
                f"batch {self.row.batch}, {self.row.runtime}: {fallback} That was allowed; "
                f"the outputs are held to the bounds of {bounds}."
            )
            self.check_outputs(worker, bounds)
        else:
            self.row = self._judged(self.row, fallback)

    def _judged(self, row: Row, fallback: str | None = None) -> Row:
        return judged(row, reference=reference_runtime(self.entry.artifacts), fallback=fallback)


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
                contender = _Contender(
                    entry=entry,
                    row=self._new_row(entry, number, batch, feeds[0]),
                    feeds=feeds,
                    expected=references[source.digest],
                    clients=self.settings.clients,
                )
                contenders.append(contender)
                self._open(contender)
                total = len(group.entries)
                self.progress.update(f"open, batch {batch}", done + 1, total, entry.runtime)
            lanes = [contender.lane for contender in contenders if contender.lane]
            for done, scope in enumerate(self.settings.scopes):
                if scope is Scope.OPEN:
                    self._repeat_openings(contenders, feeds)
                else:
                    meter = LoadMeter([c.worker.pid for c in contenders if c.worker])
                    measure(lanes, scope, self.settings.procedure, time.monotonic_ns)
                    load = meter.read()
                    self.warnings += load_warnings(f"batch {batch}, {scope}", load)
                    for lane in lanes:
                        lane.disturbances[scope] = load.disturbance
                total = len(self.settings.scopes)
                self.progress.update(f"measure, batch {batch}", done + 1, total, scope)
            if self.settings.traffic is not None:
                self._serve(contenders, self.settings.traffic, batch)
        except KeyboardInterrupt:
            self.interrupts.hold()  # a second Ctrl-C would lose what the first one keeps
            raise
        finally:
            with contextlib.ExitStack() as all_of_them:  # whatever becomes of one
                for contender in reversed(contenders):
                    all_of_them.callback(self._finish, contender, rows)

    def _finish(self, contender: _Contender, rows: list[Row]) -> None:
        try:
            contender.finish(allow_fallback=self.settings.allow_fallback)
        finally:
            rows.append(contender.row)
            self.warnings += contender.warnings

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

    def _open(self, contender: _Contender) -> None:
        """Starts the worker; parity comes before any timing.

        A row that fails it is still timed, so that one sees what the wrong answer costs; its
        status keeps it from being compared.
        """
        entry = contender.entry
        try:
            worker = contender.worker = self._start_worker()
            options = self.settings.of(entry.runtime)
            clients = self.settings.clients
            opened = worker.open(entry.runtime, entry.artifacts, options, contender.feeds, clients)
            sizes = {artifact.digest: artifact.size_bytes for artifact in entry.artifacts}
            contender.row = replace(
                contender.row,
                artifact_digest=opened.artifact_digest,
                artifact_bytes=sizes[opened.artifact_digest],
                computes=opened.computes,
                openings=(opened.opening,),
            )
            contender.check_outputs(worker, contender.row.precision_requested)
            right = contender.row.status is Status.OK or self.settings.allow_fallback
            contender.lane = Lane(probe=worker, compared=opened.computes and right)
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

    def _serve(self, contenders: Sequence[_Contender], traffic: Traffic, batch: int) -> None:
        """Lets all rows answer queries; they keep what they came to, however this ends."""
        lanes = {
            index: TrafficLane(server=contender.worker)
            for index, contender in enumerate(contenders)
            if contender.lane and contender.worker
        }
        what = f"{traffic.scenario}, batch {batch}"
        meter = LoadMeter([c.worker.pid for c in contenders if c.worker])
        run = find_rates if traffic.find_qps else serve
        try:
            run(
                list(lanes.values()),
                traffic,
                self.settings.procedure,
                lambda done, total, detail: self.progress.update(what, done, total, detail),
            )
            self.warnings += load_warnings(what, meter.read())
        finally:
            for index, lane in lanes.items():
                contender = contenders[index]
                contender.row = replace(contender.row, served=lane.served(traffic))
                if lane.failure is not None:
                    contender.fail(lane.failure)

    def _start_worker(self) -> WorkerProcess:
        settings = self.settings
        return WorkerProcess(
            threads=settings.options.threads, timeout_s=settings.timeout_s, cpus=settings.cpus
        )

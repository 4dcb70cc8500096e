"""Measure groups of rows in turn, and store them as one result."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

from toolkit.benchmarking.processes import measure_in_processes, open_in_turn
from toolkit.benchmarking.recording import keep_rows
from toolkit.benchmarking.row_checks import ReferenceOutputs
from toolkit.benchmarking.row_run import Entry, RowRun
from toolkit.benchmarking.settings import Settings
from toolkit.core.artifact import Artifact
from toolkit.core.documents import Json
from toolkit.core.errors import ToolkitError
from toolkit.core.interrupts import Interrupts
from toolkit.core.measurement import Result, Row, Scope, Status
from toolkit.core.progress import Progress
from toolkit.core.specs import Feeds
from toolkit.measuring.figures.warnings import load_warnings, machine_warnings, row_warnings
from toolkit.measuring.load_test.max_qps import find_rates
from toolkit.measuring.load_test.scenarios import WINDOWS, ServedRow, Traffic, serve
from toolkit.measuring.load_test.warnings import traffic_warnings
from toolkit.measuring.machine.environment import describe_environment
from toolkit.measuring.machine.gpus import gpu_warnings
from toolkit.measuring.timing.cpu_contention import LoadMeter, OtherLoad, average
from toolkit.measuring.timing.engine import USUAL_PROCESSES
from toolkit.measuring.timing.placement import Turns, placement_cores
from toolkit.sources.inputs import InputSource
from toolkit.sources.operation_counts import work_of
from toolkit.sources.reference_runtime import reference_worker, what_runs

OPENINGS = 5  # fewest processes of a row, if scope open is requested
BYTES_A_ROW = 2**16  # in the file of a result, without the samples
BYTES_A_WARM_UP = 2**19  # per process and scope
BYTES_A_RUN = 32  # digits of a sample of up to 10 s, plus a share of the lead of its block
BYTES_A_SECOND = 2**20  # for consecutive samples of 10 µs


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that are measured in turn on the same inputs; the first is the baseline."""

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
    """Measure every group, and store the result as `out/<id>.json`.

    A row that fails keeps the reason and its measurements so far; the others continue. On Ctrl-C,
    the rows so far are stored, then KeyboardInterrupt is raised. Before anything is measured,
    raises UsageError for inputs that do not fit, and ToolkitError if `out` has no room. Raises
    StorageError, with the result, if `out` cannot be written at the end.
    """
    for group in groups:
        group.inputs.sets(group.batch)  # raises now rather than after other groups are measured
    run = _Run(settings=settings, progress=progress)
    environment = describe_environment(settings.options.threads)
    machine = machine_warnings(settings.options.threads, environment, settings.clients)
    machine += gpu_warnings(environment["gpu_states"])

    def measure_all(rows: list[Row]) -> None:
        for number, group in enumerate(groups):
            run.measure_group(number, group, rows)

    return keep_rows(
        measure_all,
        plan={**plan, **settings.to_json()},
        environment=environment,
        warnings=lambda rows: [
            *machine,
            *warnings,
            *run.warnings,
            *row_warnings(rows, settings.procedure),
            *traffic_warnings(rows),
        ],
        interrupts=run.interrupts,
        out=out,
        expected_bytes=_expected_bytes(groups, settings),
        progress=progress,
    )


def _expected_bytes(groups: Sequence[Group], settings: Settings) -> int:
    """Return an estimate of the size of the result's file that is seldom exceeded."""
    procedure = settings.procedure
    rows = sum(len(group.entries) for group in groups)
    scopes = max(1, len(settings.scopes))
    if procedure.runs is None:
        samples = len(groups) * scopes * procedure.max_seconds * BYTES_A_SECOND
    else:
        samples = rows * scopes * procedure.runs * BYTES_A_RUN
    warm_ups = rows * scopes * (procedure.processes or USUAL_PROCESSES) * BYTES_A_WARM_UP
    return int(rows * BYTES_A_ROW + warm_ups + samples)


@final
@dataclass(kw_only=True)
class _Run:
    """State of one call that all groups share."""

    settings: Settings
    progress: Progress
    warnings: list[str] = field(default_factory=list)
    interrupts: Interrupts = field(default_factory=Interrupts)
    turns: Turns = field(init=False)

    def __post_init__(self) -> None:
        self.turns = Turns(placement_cores(self.settings.cpus))

    def measure_group(self, number: int, group: Group, rows: list[Row]) -> None:
        """Measure the rows of a group in turn, in one process of each row at a time.

        The rows are added to `rows` with their measurements, even if measuring is interrupted.
        """
        row_runs: list[RowRun] = []
        try:
            self._enter(number, group, row_runs)
            if self.settings.traffic is None:
                self._measure_all(row_runs, group.batch)
            else:
                self._serve_all(row_runs, self.settings.traffic, group.batch)
        except KeyboardInterrupt:
            self.interrupts.hold()  # a second Ctrl-C would lose the rows measured so far
            raise
        finally:
            with contextlib.ExitStack() as all_of_them:  # finish all, even if one raises
                for row_run in reversed(row_runs):
                    all_of_them.callback(self._finish, row_run, rows)

    def _enter(self, number: int, group: Group, row_runs: list[RowRun]) -> None:
        """Append a RowRun for each row, with the reference outputs for its inputs."""
        feeds = group.inputs.sets(group.batch)
        references: dict[tuple[object, ...], ReferenceOutputs | None] = {}
        for entry in group.entries:
            row = self._new_row(entry, number, group.batch, feeds[0])  # reads files before any run
            same = what_runs(entry.artifacts)
            if same not in references:
                references[same] = self._reference(entry.artifacts, feeds)
            row_runs.append(
                RowRun(
                    entry=entry,
                    row=row,
                    settings=self.settings,
                    feeds=feeds,
                    expected=references[same],
                )
            )

    def _measure_all(self, row_runs: Sequence[RowRun], batch: int) -> None:
        """Measure every scope in several processes of each row."""
        scopes = [scope for scope in self.settings.scopes if scope is not Scope.OPEN]

        def report(number: int, total: int, done: int, scope: Scope) -> None:
            task = f"measure {number + 1} of {total}, batch {batch}"
            self.progress.update(task, done, len(scopes), scope)

        loads = measure_in_processes(
            row_runs,
            scopes,
            self.settings.procedure,
            self.turns,
            least=OPENINGS if Scope.OPEN in self.settings.scopes else 1,
            open_all=lambda number, total: self._open(row_runs, batch, number, total),
            report=report,
        )
        for scope, load in loads.items():
            self.warnings += load_warnings(f"batch {batch}, {scope}", load)

    def _open(self, row_runs: Sequence[RowRun], batch: int, number: int, total: int | None) -> None:
        """End the current process of each row, and start the next."""
        core = self.turns.core()
        of = f" {number + 1} of {total}" if total else ""

        def report(done: int, row_run: RowRun) -> None:
            task = f"open{of}, batch {batch}"
            self.progress.update(task, done, len(row_runs), row_run.entry.runtime)

        open_in_turn(row_runs, number, lambda row_run: row_run.open(core), report)

    def _finish(self, row_run: RowRun, rows: list[Row]) -> None:
        try:
            row_run.finish()
        finally:
            rows.append(row_run.row)
            self.warnings += row_run.warnings

    def _new_row(self, entry: Entry, group: int, batch: int, feeds: Feeds) -> Row:
        source = entry.artifacts[0]
        shapes = {name: array.shape for name, array in feeds.items()}
        return Row(
            group=group,
            runtime=entry.runtime,
            artifact=str(source.path),
            artifact_digest=source.digest,
            batch=batch,
            status=Status.OK,
            precision_requested=source.precision,
            tuning=dict((entry.options or self.settings.of(entry.runtime)).tuning),
            work=work_of(entry.artifacts, shapes, self.warnings),
        )

    def _reference(
        self, artifacts: Sequence[Artifact], feeds: Sequence[Feeds]
    ) -> ReferenceOutputs | None:
        """Return the reference outputs for each set; None, with a warning, if it cannot run."""
        settings = self.settings
        try:
            with reference_worker(
                artifacts, threads=settings.options.threads, timeout_s=settings.timeout_s
            ) as worker:
                outputs = [worker.run(one) for one in feeds]
        except ToolkitError as error:
            warning = f"No parity: the reference failed. {error.problem} {error.hint}"
            if warning not in self.warnings:
                self.warnings.append(warning)
            return None
        return ReferenceOutputs(
            forms=artifacts, feeds=feeds, outputs=outputs, tolerance=settings.tolerance
        )

    def _serve_all(self, row_runs: Sequence[RowRun], traffic: Traffic, batch: int) -> None:
        """Run the load test on all rows, with one process of each row per window.

        A search for rates has one process. Rows keep their results even if it is interrupted.
        """
        what = f"{traffic.scenario}, batch {batch}"
        procedure = self.settings.procedure
        served_rows: dict[int, ServedRow] = {}
        loads: list[OtherLoad] = []

        def report(done: int, total: int, detail: str) -> None:
            self.progress.update(what, done, total, detail)

        try:
            for number in range(1 if traffic.find_qps else WINDOWS):
                self._open(row_runs, batch, number, None if traffic.find_qps else WINDOWS)
                if not any(row_run.alive for row_run in row_runs):
                    break
                for index, row_run in enumerate(row_runs):
                    if row_run.timed_row and row_run.worker:
                        if index in served_rows:
                            served_rows[index].move_to(row_run.worker)
                        else:
                            served_rows[index] = ServedRow(server=row_run.worker)
                going = [
                    served_row for index, served_row in served_rows.items() if row_runs[index].alive
                ]
                meter = LoadMeter([c.worker.pid for c in row_runs if c.worker])
                if traffic.find_qps:
                    find_rates(going, traffic, procedure, report)
                else:
                    serve(going, traffic, procedure, number, self.turns)
                    report(number + 1, WINDOWS, "")
                loads.append(meter.read())
                for index, served_row in served_rows.items():
                    if served_row.failure is not None and row_runs[index].alive:
                        row_runs[index].fail(served_row.failure)
            if loads:
                self.warnings += load_warnings(what, average(loads))
        finally:
            for index, served_row in served_rows.items():
                row_run = row_runs[index]
                row_run.row = replace(row_run.row, served=served_row.served(traffic))
                if served_row.failure is not None and row_run.alive:
                    row_run.fail(served_row.failure)

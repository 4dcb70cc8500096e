"""A row while it is measured: its processes, checks and measurements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import final

from toolkit.benchmarking.row_checks import ReferenceOutputs, bounds_for, fallback_of, judged
from toolkit.benchmarking.settings import Settings
from toolkit.core.artifact import Artifact
from toolkit.core.errors import ToolkitError, UnavailableError
from toolkit.core.measurement import Agreement, Row, Status
from toolkit.core.session import SessionOptions
from toolkit.core.specs import Feeds
from toolkit.measuring.timing.engine import TimedRow
from toolkit.measuring.workers.client import WorkerProcess
from toolkit.parity.outputs import combine
from toolkit.sources.reference_runtime import reference_runtime


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row to measure: the runtime opens the first of `artifacts` whose format it accepts.

    `options` replace those of the run. If `judged` is False, the agreement of the outputs and the
    precision that ran are recorded, but do not fail the row; the caller decides.
    """

    artifacts: Sequence[Artifact]
    runtime: str
    options: SessionOptions | None = None
    judged: bool = True


@final
@dataclass(kw_only=True)
class RowRun:
    """A row with its current process, and its results from all processes.

    `timed_row` is None until the first process is open. `expected` has the reference outputs for
    each of `feeds`, None if the reference could not run. `broken` is set by an error that ended the
    row.
    """

    entry: Entry
    row: Row
    settings: Settings
    feeds: Sequence[Feeds]
    expected: ReferenceOutputs | None
    worker: WorkerProcess | None = None
    timed_row: TimedRow | None = None
    warnings: list[str] = field(default_factory=list)
    broken: bool = False

    @property
    def alive(self) -> bool:
        """Whether the row can still be measured."""
        return not self.broken and (self.timed_row is None or self.timed_row.failure is None)

    def fail(self, error: ToolkitError) -> None:
        """End the row with the reason in `error`, which no later check changes."""
        self.broken = True
        missing = isinstance(error, UnavailableError)
        self.row = replace(
            self.row,
            status=Status.UNAVAILABLE if missing else Status.FAILED,
            reason=f"{error.problem} {error.hint}",
        )

    def open(self, core: int | None = None) -> None:
        """Start the next process of the row on `core`, and check its outputs before any timing.

        A row with wrong outputs is still timed, to show how fast it is; its status excludes it from
        comparisons. An error ends the row.
        """
        entry, settings = self.entry, self.settings
        options = entry.options or settings.of(entry.runtime)
        try:
            worker = self.worker = WorkerProcess(
                threads=options.threads, timeout_s=settings.timeout_s, cpus=settings.cpus
            )
            opened = worker.open(
                entry.runtime,
                entry.artifacts,
                options,
                self.feeds,
                settings.clients,
                core,
            )
            sizes = {artifact.digest: artifact.size_bytes for artifact in entry.artifacts}
            self.row = replace(
                self.row,
                artifact_digest=opened.artifact_digest,
                artifact_bytes=sizes[opened.artifact_digest],
                computes=opened.computes,
                device=opened.device,
                openings=(*self.row.openings, opened.opening),
            )
            self._check_outputs(worker, self._bounds, self.row.parity)
            right = self.row.status is Status.OK or settings.allow_fallback
            if self.timed_row is None:
                self.timed_row = TimedRow(probe=worker)
            else:
                self.timed_row.move_to(worker)
            self.timed_row.compared = opened.computes and right
        except ToolkitError as error:
            self.fail(error)

    def close(self) -> None:
        """End the current process."""
        if self.worker is None:
            return
        with self.worker as worker:
            self._keep(worker)
            self._ask(worker)
        self.worker = None

    def finish(self) -> None:
        """Add the measurements to the row, and end the current process."""
        if self.timed_row is not None:
            self.row = replace(self.row, measurements=self.timed_row.measurements())
        self.close()

    def _keep(self, worker: WorkerProcess) -> None:
        """Add the failure of the timed row and the peak memory of the process to the row."""
        if self.timed_row is None:
            return
        if self.timed_row.failure is not None and not self.broken:
            self.fail(self.timed_row.failure)
        if worker.answers:
            with self._failing():
                peak = worker.peak_rss_bytes()
                self.row = replace(self.row, peak_rss_bytes=max(peak, self.row.peak_rss_bytes or 0))

    def _ask(self, worker: WorkerProcess) -> None:
        """Add the provenance of the first process and check it.

        It is read last, because that takes memory and time.
        """
        if self.row.provenance is not None or self.timed_row is None or not worker.answers:
            return
        with self._failing():
            self.row = replace(self.row, provenance=worker.provenance())
            if not self.broken:
                self._check_request(worker)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """End the row if the block raises a ToolkitError, unless the row has failed already."""
        try:
            yield
        except ToolkitError as error:
            if self.row.status is Status.OK:
                self.fail(error)

    def _check_request(self, worker: WorkerProcess) -> None:
        fallback = fallback_of(self.row)
        if fallback is None or not self.entry.judged:
            return
        if self.settings.allow_fallback:
            self.warnings.append(
                f"batch {self.row.batch}, {self.row.runtime}: {fallback} That was allowed; "
                f"the outputs are checked with the bounds of {self._bounds}."
            )
            self._check_outputs(worker, self._bounds)
        else:
            self.row = self._judged(self.row, fallback)

    @property
    def _bounds(self) -> str:
        """Precision whose bounds apply: the requested one, or a coarser one that was allowed."""
        return (
            bounds_for(self.row) if self.settings.allow_fallback else self.row.precision_requested
        )

    def _check_outputs(
        self, worker: WorkerProcess, precision: str, earlier: Agreement | None = None
    ) -> None:
        """Fail the row if its outputs in this or an earlier process are not the reference's."""
        if self.expected is not None and self.row.computes:
            clients = self.settings.clients
            parity = self.expected.agreement(worker.run, precision, clients)
            if parity.remark and not (earlier and earlier.remark):
                self.warnings.append(
                    f"batch {self.row.batch}, {self.row.runtime}: outputs beyond the table of "
                    f"tolerances, {parity.remark}."
                )
            parity = combine([earlier, parity]) if earlier else parity
            self.row = replace(self.row, parity=parity)
            if self.entry.judged:
                self.row = self._judged(self.row)

    def _judged(self, row: Row, fallback: str | None = None) -> Row:
        return judged(row, reference=reference_runtime(self.entry.artifacts), fallback=fallback)

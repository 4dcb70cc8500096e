"""A row while it is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import final

from toolkit.core.artifact import Artifact
from toolkit.core.errors import ToolkitError, UnavailableError
from toolkit.core.measurement import Agreement, Row, Status
from toolkit.core.session import SessionOptions
from toolkit.core.specs import Feeds
from toolkit.measuring.client import WorkerProcess
from toolkit.measuring.engine import Lane
from toolkit.parity.outputs import combine
from toolkit.steps.checks import ReferenceOutputs, bounds_for, fallback_of, judged
from toolkit.steps.reference import reference_runtime
from toolkit.steps.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row to measure: the runtime opens the first of `artifacts` whose format it takes, with
    `options` where those are not the run's.

    Of one that is not `judged`, what its outputs are and in what precision it ran is told, and
    decided upon elsewhere.
    """

    artifacts: Sequence[Artifact]
    runtime: str
    options: SessionOptions | None = None
    judged: bool = True


@final
@dataclass(kw_only=True)
class Contender:
    """A row, its process of the moment, and what it came to in all of them.

    `lane` is None until a first process is open. `expected` is what the reference gives for each
    of `feeds`, None where it could not run.
    """

    entry: Entry
    row: Row
    settings: Settings
    feeds: Sequence[Feeds]
    expected: ReferenceOutputs | None
    worker: WorkerProcess | None = None
    lane: Lane | None = None
    warnings: list[str] = field(default_factory=list)
    broken: bool = False

    @property
    def alive(self) -> bool:
        """Whether it takes part in what comes next."""
        return not self.broken and (self.lane is None or self.lane.failure is None)

    def fail(self, error: ToolkitError) -> None:
        """Ends the row with the reason, which nothing that is found out later changes."""
        self.broken = True
        missing = isinstance(error, UnavailableError)
        self.row = replace(
            self.row,
            status=Status.UNAVAILABLE if missing else Status.FAILED,
            reason=f"{error.problem} {error.hint}",
        )

    def open(self) -> None:
        """Starts the next process of the row; parity comes before any timing.

        A row that fails it is still timed, so that one sees what the wrong answer costs; its
        status keeps it from being compared.
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
            self._check_outputs(worker, self.row.precision_requested, self.row.parity)
            right = self.row.status is Status.OK or settings.allow_fallback
            if self.lane is None:
                self.lane = Lane(probe=worker)
            else:
                self.lane.move_to(worker)
            self.lane.compared = opened.computes and right
        except ToolkitError as error:
            self.fail(error)

    def close(self) -> None:
        """Ends the process of the moment."""
        if self.worker is None:
            return
        with self.worker as worker:
            self._keep(worker)
        self.worker = None

    def finish(self) -> None:
        """Completes the row with what was measured, then with what really ran; ends the process."""
        if self.lane is not None:
            self.row = replace(self.row, measurements=self.lane.measurements())
        if self.worker is None:
            return
        with self.worker as worker:
            self._keep(worker)
            if self.lane is not None and worker.answers:
                self._ask(worker)

    def _keep(self, worker: WorkerProcess) -> None:
        """The reason of a lane that failed, and the size of the process."""
        if self.lane is None:
            return
        if self.lane.failure is not None and not self.broken:
            self.fail(self.lane.failure)
        if worker.answers:
            with self._failing():
                peak = worker.peak_rss_bytes()
                self.row = replace(self.row, peak_rss_bytes=max(peak, self.row.peak_rss_bytes or 0))

    def _ask(self, worker: WorkerProcess) -> None:
        """Provenance: after all else, since to tell it takes memory and time of its own."""
        with self._failing():
            self.row = replace(self.row, provenance=worker.provenance())
            if not self.broken:
                self._hold_to_request(worker)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """An error ends the row, unless it has failed already."""
        try:
            yield
        except ToolkitError as error:
            if self.row.status is Status.OK:
                self.fail(error)

    def _hold_to_request(self, worker: WorkerProcess) -> None:
        fallback = fallback_of(self.row)
        if fallback is None or not self.entry.judged:
            return
        if self.settings.allow_fallback:
            bounds = bounds_for(self.row)
            self.warnings.append(
                f"batch {self.row.batch}, {self.row.runtime}: {fallback} That was allowed; "
                f"the outputs are held to the bounds of {bounds}."
            )
            self._check_outputs(worker, bounds)
        else:
            self.row = self._judged(self.row, fallback)

    def _check_outputs(
        self, worker: WorkerProcess, precision: str, earlier: Agreement | None = None
    ) -> None:
        """Fails the row whose outputs are not the reference's, in this process or an earlier."""
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

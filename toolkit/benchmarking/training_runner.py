"""Measure training: rows that train in turn, stored as one result."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from models.base import Family
from toolkit.benchmarking.processes import measure_in_processes, open_in_turn
from toolkit.benchmarking.recording import keep_rows
from toolkit.benchmarking.runner import BYTES_A_ROW
from toolkit.core.codec import encode
from toolkit.core.documents import Json
from toolkit.core.errors import ToolkitError, UnavailableError
from toolkit.core.interrupts import Interrupts
from toolkit.core.measurement import Result, Row, Scope, Status
from toolkit.core.progress import Progress
from toolkit.core.specs import ModelSpec, Task
from toolkit.core.temporary import scratch_directory
from toolkit.data.base import Split
from toolkit.measuring.figures.warnings import load_warnings, machine_warnings, row_warnings
from toolkit.measuring.machine.environment import describe_environment
from toolkit.measuring.machine.gpus import gpu_warnings
from toolkit.measuring.timing.engine import (
    Procedure,
    TimedRow,
)
from toolkit.measuring.timing.placement import Turns, placement_cores
from toolkit.measuring.workers.client import WorkerProcess
from toolkit.measuring.workers.training_client import MODULE, TrainingProbe, write_split
from toolkit.parity.losses import compare_losses
from toolkit.sources.interpreters import interpreter
from toolkit.sources.user_model import own_spec
from toolkit.trainers.base import Settings
from toolkit.trainers.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainingComparison:
    """A comparison of training speed: every trainer with every recipe, on `train`.

    The recipes differ in the batch. `family` is None for user code, whose callable `model` names.
    """

    model: str
    family: Family | None
    settings: Mapping[str, Any]
    task: Task
    data: str
    train: Split
    trainers: Sequence[str]
    recipes: Sequence[Recipe]
    threads: int
    cpus: frozenset[int] | None
    device: str
    procedure: Procedure
    pythons: Mapping[str, str | os.PathLike[str]]
    timeout_s: float

    def spec(self, framework: str) -> ModelSpec:
        """Return the model's specification for a framework.

        Raises UnknownNameError if the family has no implementation in the framework.
        """
        if self.family is None:
            name = self.model.rpartition(":")[2]
            return own_spec(name, framework, self.task, self.data)
        self.family.builders.entry(framework)
        return self.family.spec(framework, task=self.task, data=self.data, settings=self.settings)

    def to_json(self) -> Json:
        """Return the plan stored in the result; the keys of a `toolkit bench` plan come first."""
        return {
            "artifact": self.model,
            "runtimes": list(self.trainers),
            "batches": [recipe.batch for recipe in self.recipes],
            "inputs": f"{len(self.train):,} training rows of {self.data}",
            "scopes": [Scope.EPOCH, Scope.OPEN],
            "traffic": None,
            "options": {"threads": self.threads, "device": self.device},
            "cpus": sorted(self.cpus) if self.cpus else None,
            "tuning": {},
            "procedure": self.procedure.to_json(),
            "timeout_s": self.timeout_s,
            "training": {
                "data": self.data,
                "rows": len(self.train),
                "settings": dict(self.settings),
                "recipes": encode(list(self.recipes)),
                "pythons": {name: str(path) for name, path in self.pythons.items()},
            },
        }


def measure_training(comparison: TrainingComparison, out: Path, progress: Progress) -> Result:
    """Measure every recipe, and store the result as `out/<id>.json`.

    A row that fails keeps the reason and its measurements so far; the others continue. On Ctrl-C,
    the rows so far are stored, then KeyboardInterrupt is raised.
    """
    environment = describe_environment(comparison.threads)
    machine = machine_warnings(comparison.threads, environment)
    machine += gpu_warnings(environment["gpu_states"])
    with scratch_directory() as directory:
        split = write_split(comparison.train, directory)
        run = _Run(comparison=comparison, split=split, progress=progress)

        def measure_all(rows: list[Row]) -> None:
            for number, recipe in enumerate(comparison.recipes):
                run.measure_group(number, recipe, rows)

        return keep_rows(
            measure_all,
            plan=comparison.to_json(),
            environment=environment,
            warnings=lambda rows: [
                *machine,
                *run.warnings,
                *row_warnings(rows, comparison.procedure),
            ],
            interrupts=run.interrupts,
            out=out,
            expected_bytes=len(comparison.recipes) * len(comparison.trainers) * BYTES_A_ROW,
            progress=progress,
        )


@final
@dataclass(kw_only=True)
class _TrainingRowRun:
    """A row while it is measured.

    `worker` and `probe` are those of the current process, None if it did not start. `timed_row` is
    None until the first process is open.
    """

    row: Row
    worker: WorkerProcess | None = None
    probe: TrainingProbe | None = None
    timed_row: TimedRow | None = None

    @property
    def alive(self) -> bool:
        """Whether the row can still be measured."""
        ended = self.timed_row is not None and self.timed_row.failure is not None
        return self.row.status is Status.OK and not ended

    def fail(self, error: ToolkitError) -> None:
        """Set the status and reason of the row, unless it has failed already."""
        if self.row.status is Status.OK:
            missing = isinstance(error, UnavailableError)
            self.row = replace(
                self.row,
                status=Status.UNAVAILABLE if missing else Status.FAILED,
                reason=f"{error.problem} {error.hint}",
            )

    def close(self) -> None:
        """Add losses, peak memory and provenance of the current process to the row, and end it.

        Losses and provenance are those of the first process, whose training the others repeat.
        """
        if self.worker is None:
            return
        with self.worker as worker:
            self.worker = None
            if self.timed_row is None or self.probe is None:
                return
            if self.row.learning is None:
                self.row = replace(self.row, learning=self.probe.learning())
            if self.timed_row.failure is not None:
                self.fail(self.timed_row.failure)
            if worker.answers:
                try:
                    peak = max(worker.peak_rss_bytes(), self.row.peak_rss_bytes or 0)
                    self.row = replace(self.row, peak_rss_bytes=peak)
                    if self.row.provenance is None:
                        self.row = replace(self.row, provenance=worker.provenance())
                except ToolkitError as error:
                    self.fail(error)

    def finish(self) -> None:
        """End the current process, and add the measurements of all to the row."""
        try:
            self.close()
        finally:
            if self.timed_row is not None:
                self.row = replace(self.row, measurements=self.timed_row.measurements())


@final
@dataclass(kw_only=True)
class _Run:
    """State of one call that all groups share."""

    comparison: TrainingComparison
    split: Mapping[str, str]
    progress: Progress
    warnings: list[str] = field(default_factory=list)
    interrupts: Interrupts = field(default_factory=Interrupts)

    def measure_group(self, number: int, recipe: Recipe, rows: list[Row]) -> None:
        """Measure the rows in turn, in one process of each at a time.

        Each process trains from the start. Adds the rows to `rows` even if interrupted.
        """
        comparison = self.comparison
        row_runs = [
            _TrainingRowRun(row=self._new_row(label, number, recipe))
            for label in comparison.trainers
        ]
        try:
            self._measure_all(row_runs, recipe)
        except KeyboardInterrupt:
            self.interrupts.hold()  # a second Ctrl-C would lose the rows measured so far
            raise
        finally:
            with contextlib.ExitStack() as all_of_them:  # finish all, even if one raises
                for row_run in row_runs:
                    all_of_them.callback(row_run.finish)
            rows += self._judged([row_run.row for row_run in row_runs])

    def _measure_all(self, row_runs: Sequence[_TrainingRowRun], recipe: Recipe) -> None:
        """Measure epochs in several processes of each row."""
        what = f"batch {recipe.batch}"

        def opened(done: int, row_run: _TrainingRowRun) -> None:
            self.progress.update(f"prepare, {what}", done, len(row_runs), row_run.row.runtime)

        def open_all(number: int, _: int | None) -> None:
            open_in_turn(row_runs, number, lambda row_run: self._open(row_run, recipe), opened)

        loads = measure_in_processes(
            row_runs,
            [Scope.EPOCH],
            self.comparison.procedure,
            Turns(placement_cores(self.comparison.cpus)),
            least=1,
            open_all=open_all,
            report=lambda number, total, _, scope: self.progress.update(
                f"measure, {what}", number + 1, total, scope
            ),
        )
        for scope, load in loads.items():
            self.warnings += load_warnings(f"{what}, {scope}", load)

    def _new_row(self, label: str, group: int, recipe: Recipe) -> Row:
        return Row(
            group=group,
            runtime=label,
            artifact=self.comparison.model,
            artifact_digest="",
            batch=recipe.batch,
            status=Status.OK,
            precision_requested="float32",
        )

    def _open(self, row_run: _TrainingRowRun, recipe: Recipe) -> None:
        """Start a worker and prepare training; a ToolkitError becomes the reason of the row."""
        comparison = self.comparison
        framework, _, mode = row_run.row.runtime.partition(":")
        try:
            spec = comparison.spec(framework)
            worker = row_run.worker = WorkerProcess(
                threads=comparison.threads,
                timeout_s=comparison.timeout_s,
                cpus=comparison.cpus,
                python=interpreter(framework, comparison.pythons),
                module=MODULE,
            )
            probe = TrainingProbe(worker)
            opening = probe.open(
                framework,
                mode or None,
                spec,
                recipe,
                rows=len(comparison.train),
                split=self.split,
                settings=Settings(threads=comparison.threads, device=comparison.device),
                own=None if comparison.family else comparison.model,
            )
            openings = (*row_run.row.openings, opening)
            row_run.row = replace(row_run.row, openings=openings)
            row_run.probe = probe
            if row_run.timed_row is None:
                row_run.timed_row = TimedRow(probe=probe)
            else:
                row_run.timed_row.move_to(probe)
        except ToolkitError as error:
            row_run.fail(error)

    def _judged(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows with their losses compared with those of the first row that has any.

        A row whose losses differ keeps its times, and a warning names it: a model that draws random
        numbers in training differs by nature.
        """
        learnt = [row.learning for row in rows if row.learning and row.learning.losses]
        judged = []
        for row in rows:
            parity = compare_losses(row.learning, learnt[0]) if row.learning and learnt else None
            judged.append(replace(row, parity=parity))
            if parity is not None and not parity.passed:
                self.warnings.append(
                    f"batch {row.batch}, {row.runtime}: {parity.reason} Its time is "
                    "that of another training, unless the model draws at random (dropout)."
                )
        return judged

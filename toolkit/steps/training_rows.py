"""Measure training: rows that train in turn, stored as one result."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from models.base import Family
from toolkit.core.codec import encode
from toolkit.core.documents import Json
from toolkit.core.errors import ToolkitError, UnavailableError
from toolkit.core.interrupts import Interrupts
from toolkit.core.measurement import Result, Row, Scope, Status
from toolkit.core.progress import Progress
from toolkit.core.specs import ModelSpec, Task
from toolkit.core.temporary import scratch_directory
from toolkit.data.base import Split
from toolkit.measuring.client import WorkerProcess
from toolkit.measuring.engine import Lane, Part, Procedure, measure
from toolkit.measuring.environment import describe_environment
from toolkit.measuring.gpus import gpu_warnings
from toolkit.measuring.load import LoadMeter
from toolkit.measuring.training_client import MODULE, TrainingProbe, write_split
from toolkit.measuring.warnings import load_warnings, machine_warnings, row_warnings
from toolkit.parity.losses import compare_losses
from toolkit.steps.interpreters import interpreter
from toolkit.steps.keeping import keep_rows
from toolkit.steps.own import own_spec
from toolkit.steps.rows import BYTES_A_ROW
from toolkit.training.base import Settings
from toolkit.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Contest:
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


def measure_training(contest: Contest, out: Path, progress: Progress) -> Result:
    """Measure every recipe, and store the result as `out/<id>.json`.

    A row that fails keeps the reason and its measurements so far; the others continue. On Ctrl-C,
    the rows so far are stored, then KeyboardInterrupt is raised.
    """
    environment = describe_environment(contest.threads)
    machine = machine_warnings(contest.threads, environment)
    machine += gpu_warnings(environment["gpu_states"])
    with scratch_directory() as directory:
        split = write_split(contest.train, directory)
        run = _Run(contest=contest, split=split, progress=progress)

        def measure_all(rows: list[Row]) -> None:
            for number, recipe in enumerate(contest.recipes):
                run.measure_group(number, recipe, rows)

        return keep_rows(
            measure_all,
            plan=contest.to_json(),
            environment=environment,
            warnings=lambda rows: [
                *machine,
                *run.warnings,
                *row_warnings(rows, contest.procedure),
            ],
            interrupts=run.interrupts,
            out=out,
            expected_bytes=len(contest.recipes) * len(contest.trainers) * BYTES_A_ROW,
            progress=progress,
        )


@final
@dataclass(kw_only=True)
class _Contender:
    """A row while it is measured; `worker`, `probe` and `lane` are None if they did not start."""

    row: Row
    worker: WorkerProcess | None = None
    probe: TrainingProbe | None = None
    lane: Lane | None = None

    def fail(self, error: ToolkitError) -> None:
        """Set the status and reason of the row, unless it has failed already."""
        if self.row.status is Status.OK:
            missing = isinstance(error, UnavailableError)
            self.row = replace(
                self.row,
                status=Status.UNAVAILABLE if missing else Status.FAILED,
                reason=f"{error.problem} {error.hint}",
            )

    def finish(self) -> None:
        """Add measurements, peak memory and provenance to the row, and end the worker."""
        if self.worker is None:
            return
        with self.worker as worker:
            if self.lane is None or self.probe is None:
                return
            self.row = replace(
                self.row,
                measurements=self.lane.measurements(),
                learning=self.probe.learning(),
            )
            if self.lane.failure is not None:
                self.fail(self.lane.failure)
            if worker.answers:
                try:
                    self.row = replace(self.row, peak_rss_bytes=worker.peak_rss_bytes())
                    self.row = replace(self.row, provenance=worker.provenance())
                except ToolkitError as error:
                    self.fail(error)


@final
@dataclass(kw_only=True)
class _Run:
    """State of one call that all groups share."""

    contest: Contest
    split: Mapping[str, str]
    progress: Progress
    warnings: list[str] = field(default_factory=list)
    interrupts: Interrupts = field(default_factory=Interrupts)

    def measure_group(self, number: int, recipe: Recipe, rows: list[Row]) -> None:
        """Open every row, then measure all in turn; add them to `rows` even if interrupted."""
        contest = self.contest
        contenders: list[_Contender] = []
        what = f"batch {recipe.batch}"
        try:
            for done, label in enumerate(contest.trainers, 1):
                contenders.append(contender := _Contender(row=self._new_row(label, number, recipe)))
                self._open(contender, label, recipe)
                self.progress.update(f"prepare, {what}", done, len(contest.trainers), label)
            lanes = [contender.lane for contender in contenders if contender.lane]
            meter = LoadMeter([c.worker.pid for c in contenders if c.worker])
            # One process: a second would have to resume training where the first stopped.
            whole = Part(procedure=replace(contest.procedure, processes=1))
            measure(lanes, Scope.EPOCH, whole, time.monotonic_ns)
            load = meter.read()
            if lanes:  # without any, no time passed in which to measure the load of others
                self.warnings += load_warnings(f"{what}, {Scope.EPOCH}", load)
            for lane in lanes:
                lane.disturbances[Scope.EPOCH] = load.disturbance
            self.progress.update(f"measure, {what}", 1, 1, Scope.EPOCH)
        except KeyboardInterrupt:
            self.interrupts.hold()  # a second Ctrl-C would lose the rows measured so far
            raise
        finally:
            with contextlib.ExitStack() as all_of_them:  # finish all, even if one raises
                for contender in contenders:
                    all_of_them.callback(contender.finish)
            rows += self._judged([contender.row for contender in contenders])

    def _new_row(self, label: str, group: int, recipe: Recipe) -> Row:
        return Row(
            group=group,
            runtime=label,
            artifact=self.contest.model,
            artifact_digest="",
            batch=recipe.batch,
            status=Status.OK,
            precision_requested="float32",
        )

    def _open(self, contender: _Contender, label: str, recipe: Recipe) -> None:
        """Start the worker and prepare training; a ToolkitError becomes the reason of the row."""
        contest = self.contest
        framework, _, mode = label.partition(":")
        try:
            spec = contest.spec(framework)
            worker = contender.worker = WorkerProcess(
                threads=contest.threads,
                timeout_s=contest.timeout_s,
                cpus=contest.cpus,
                python=interpreter(framework, contest.pythons),
                module=MODULE,
            )
            probe = TrainingProbe(worker)
            opening = probe.open(
                framework,
                mode or None,
                spec,
                recipe,
                rows=len(contest.train),
                split=self.split,
                settings=Settings(threads=contest.threads, device=contest.device),
                own=None if contest.family else contest.model,
            )
            contender.row = replace(contender.row, openings=(opening,))
            contender.probe, contender.lane = probe, Lane(probe=probe)
        except ToolkitError as error:
            contender.fail(error)

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

"""Planning and running of a study: each cell without an outcome runs once its parents have one."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from toolkit.core.documents import Json
from toolkit.core.errors import UsageError, unknown_name
from toolkit.core.progress import Progress, Silent
from toolkit.study.document import Study
from toolkit.study.estimate import Estimate, estimate
from toolkit.study.executor import Executor
from toolkit.study.job import Job
from toolkit.study.local import LocalExecutor
from toolkit.study.matrix import Cell, cells_of
from toolkit.study.outcomes import finish, outcome_of
from toolkit.study.store import Outcome, State, Store, is_study

EXECUTORS = ("local", "ray")


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A cell of a study with its outcome, None if it is still to do.

    `damage` is the reason why the stored outcome cannot be read, if there is one. `wanted` is
    whether the cell, or one that depends on it, matches `only`.
    """

    cell: Cell
    outcome: Outcome | None
    damage: str | None
    wanted: bool

    @property
    def state(self) -> State:
        return State.TO_DO if self.outcome is None else self.outcome.state

    def to_json(self) -> Json:
        outcome = self.outcome
        return {
            "id": self.cell.id,
            "step": self.cell.step,
            "dimensions": self.cell.dimensions,
            "described": self.cell.described,
            "parents": [parent.id for parent in self.cell.parents],
            "wanted": self.wanted,
            "state": self.state,
            "reason": self.damage if outcome is None else outcome.reason,
            "seconds": outcome and outcome.seconds,
            "machine": outcome and outcome.machine,
        }


@dataclass(frozen=True, kw_only=True)
class Progressed:
    """State of a study: all cells in the order they run, and the estimated time that is left.

    `left` is for the cells that are selected and still to do.
    """

    study: Study
    directory: Path
    cells: Sequence[Planned]
    left: Estimate

    def to_json(self) -> Json:
        return {
            "schema": "toolkit.study-run/1",
            "study": self.study.name,
            "directory": str(self.directory),
            "quick": self.study.quick,
            "stands_in": self.study.stands_in,
            "seconds_left": self.left.seconds,
            "cells_of_unknown_length": self.left.unknown,
            "cells": [one.to_json() for one in self.cells],
        }


def plan_study(
    study: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    data: str | None = None,
    quick: bool = False,
    only: str | None = None,
) -> Progressed:
    """Return what `run_study` would run, without running or writing anything.

    The options are as in `run_study`. Raises SourceError, UnknownNameError and UsageError for an
    invalid study, and UsageError if no cell matches `only`.
    """
    read = Study.read(os.fspath(study), data=data, quick=quick)
    return _planned(read, Store(directory=Path(out)), cells_of(read), only)


def run_study(
    study: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    data: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    quick: bool = False,
    only: str | None = None,
    retry: bool = False,
    executor: str = "local",
    address: str | None = None,
    show: Callable[[Progressed], None] = lambda plan: None,
    progress: Progress | None = None,
) -> Progressed:
    """Run every cell of `study` that has no outcome in the directory `out`; return the new state.

    `study` is a TOML file or the name of a built-in study. `data` and `quick` are as in
    `Study.read`. `data_dir` is the directory of the data sets. `only` is a pattern, such as
    "train-*", or the beginning of an id; the matching cells and their ancestors are run. `executor`
    is "local" or "ray", `address` that of a Ray cluster. `show` is called with the plan before any
    cell is run.

    If a cell fails, the cells that need it are skipped and the others run; a verification or
    benchmark runs without the variants that failed. Failed and skipped cells are run again only
    with `retry`, cells with a damaged outcome always. On Ctrl-C, all finished cells are kept, and
    KeyboardInterrupt is raised.

    Before any cell is run, raises SourceError, UnknownNameError and UsageError for an invalid study
    or option, UsageError if `out` has other content or another process runs a study in it, and
    UnavailableError if Ray is missing or no cluster answers. Raises ToolkitError if the executor
    fails.
    """
    listener = progress or Silent()
    if executor not in EXECUTORS:
        raise unknown_name("executor", executor, EXECUTORS)
    read = Study.read(os.fspath(study), data=data, quick=quick)
    cells = cells_of(read)
    store = Store(directory=Path(out))
    _refuse_other(store)
    with store.locked() as lock:
        for cell in cells:
            if (damage := store.damage(cell.id)) is not None:
                listener.note(f"warning: {damage} The cell {cell.id} is run again.")
                store.forget(cell.id)
        store.write(read, cells)
        found = _planned(read, store, cells, only)
        if retry:
            for one in found.cells:
                if one.wanted and one.state in (State.FAILED, State.SKIPPED):
                    store.forget(one.cell.id)
            found = _planned(read, store, cells, only)
        show(found)
        wanted = [one.cell for one in found.cells if one.wanted and one.outcome is None]
        if wanted:
            with closing(_executor(executor, address, listener, lock)) as chosen:
                place = None if data_dir is None else Path(data_dir)
                _Work(store, place, chosen, listener).all(wanted)
        return _planned(read, store, cells, only)


def _refuse_other(store: Store) -> None:
    """Raise UsageError for a file, or a directory that is neither empty nor a study."""
    place = store.directory
    if place.exists() and not is_study(place) and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"{place} is not empty, and holds no study.", hint="Choose another --out.")


def _executor(name: str, address: str | None, progress: Progress, lock: int) -> Executor:
    if name == "local":
        if address is not None:
            raise UsageError(
                f"Got --address {address} with the local executor.",
                hint="Add --executor ray, or leave it out.",
            )
        return LocalExecutor(progress, lock)
    from toolkit.study.ray_executor import RayExecutor

    return RayExecutor(progress, address)


class _Work:
    """Scheduler that starts cells on an executor and skips those whose parents failed."""

    def __init__(
        self, store: Store, data_dir: Path | None, executor: Executor, progress: Progress
    ) -> None:
        self._store, self._data_dir = store, data_dir
        self._executor, self._progress = executor, progress

    def all(self, cells: Sequence[Cell]) -> None:
        left = list(cells)
        running: dict[str, Cell] = {}
        done, total = 0, len(cells)
        self._progress.update("cells", done, total)
        while left or running:
            moved = False
            for cell in list(left):
                if not self._executor.free():
                    break
                if not self._ready(cell):
                    continue
                if (reason := self._hopeless(cell)) is not None:
                    moved = True
                    left.remove(cell)
                    done += 1
                    self._skip(cell, reason)
                    self._told(cell, State.SKIPPED, reason, done, total)
                    continue
                job = Job.of(cell, self._store, self._data_dir)
                if not self._executor.able(job):
                    continue
                left.remove(cell)
                running[cell.id] = cell
                self._progress.note(f"{cell.id}: {cell.described}")
                self._executor.start(job)
            if moved and not running:
                continue
            job, outcome = self._executor.wait()
            cell = running.pop(job.id)
            if outcome is None:
                self._progress.note(f"{cell.id}: its machine was lost; it runs again elsewhere")
                left.insert(0, cell)
                continue
            done += 1
            told = outcome.reason or f"{outcome.seconds:.1f} s"
            self._told(cell, outcome.state, told, done, total)

    def _told(self, cell: Cell, state: State, why: str, done: int, total: int) -> None:
        self._progress.note(f"{cell.id}: {state}, {why}")
        self._progress.update("cells", done, total)

    def _ready(self, cell: Cell) -> bool:
        """Return whether all parents have an outcome."""
        return all(self._store.outcome(parent.id) is not None for parent in cell.parents)

    def _hopeless(self, cell: Cell) -> str | None:
        """Return why the cell has to be skipped, None if it can run.

        A benchmark or verification only needs the training, not the other variants.
        """
        needed = cell.parents[:1] if cell.step in ("bench", "verify") else cell.parents
        for parent in needed:
            outcome = self._store.outcome(parent.id)
            assert outcome is not None
            if outcome.state is not State.DONE:
                return f"{parent.id} {outcome.state}: {outcome.reason}"
        return None

    def _skip(self, cell: Cell, reason: str) -> None:
        job = Job.of(cell, self._store, self._data_dir)
        job.partial.mkdir(parents=True)
        finish(job, outcome_of(job, State.SKIPPED, datetime.now(UTC), reason=reason))


def _planned(study: Study, store: Store, cells: Sequence[Cell], only: str | None) -> Progressed:
    chosen, begun = _chosen(cells, only), store.ids()
    planned = [
        Planned(
            cell=cell,
            outcome=store.outcome(cell.id) if cell.id in begun else None,
            damage=store.damage(cell.id) if cell.id in begun else None,
            wanted=cell.id in chosen,
        )
        for cell in cells
    ]
    todo = [one.cell for one in planned if one.wanted and one.outcome is None]
    done = [one.outcome for one in planned if one.outcome is not None]
    return Progressed(
        study=study,
        directory=store.directory,
        cells=planned,
        left=estimate(todo, done),
    )


def _chosen(cells: Sequence[Cell], only: str | None) -> set[str]:
    """Return the ids of the cells that match `only` and of their ancestors, by default of all.

    Raises UsageError if no cell matches.
    """
    if only is None:
        return {cell.id for cell in cells}
    matching = [
        cell for cell in cells if fnmatch.fnmatch(cell.id, only) or cell.id.startswith(only)
    ]
    if not matching:
        raise UsageError(
            f"No cell of the study matches --only {only}.",
            hint=f"Give a pattern or the beginning of an id, such as {cells[0].id}.",
        )
    return {one.id for cell in matching for one in (*cell.ancestors, cell)}

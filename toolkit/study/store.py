"""Directory of a study: `study.json`, and `cells/<id>/` with the output of each finished cell."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from toolkit.core.codec import LARGEST, Name
from toolkit.core.documents import read_as, seal, write_document
from toolkit.core.errors import SourceError, ToolkitError
from toolkit.core.files import locked_directory, wrapping_os_errors
from toolkit.core.temporary import sweep_below
from toolkit.study.document import Plot, Study, Table
from toolkit.study.matrix import Cell

STUDY_FILE = "study.json"
STUDY_SCHEMA = "toolkit.study/1"
CELL_FILE = "cell.json"
CELL_SCHEMA = "toolkit.cell/1"
CELLS = "cells"
LOG = "log.txt"
CHECKPOINT, ARTIFACT = "checkpoint", "artifact"
REPORTS = {"verify": "verify.json"}


class State(StrEnum):
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"  # because a cell that it needs failed or was skipped
    TO_DO = "to do"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of a cell, stored as its `cell.json`.

    `reason` is why it failed or was skipped. `started` is an ISO 8601 time in UTC. `machine`
    describes the machine in one line. `output` has the digest or id of the output, by kind.
    """

    id: Name
    step: str
    dimensions: Mapping[str, Any]
    parents: Sequence[Name]
    state: State
    reason: str | None = None
    started: str
    seconds: Annotated[float, Meta(ge=0, le=LARGEST)]
    machine: str
    output: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class StoredCell:
    """Description of a cell in `study.json`."""

    id: Name
    step: str
    dimensions: Mapping[str, Any]
    described: str
    parents: tuple[Name, ...]


@dataclass(frozen=True, kw_only=True)
class StoredStudy:
    """Content of `study.json`: the description of a study, and its cells."""

    name: str
    title: str
    about: str
    tables: tuple[Table, ...]
    plots: tuple[Plot, ...]
    limits: tuple[str, ...]
    quick: bool
    stands_in: str | None
    cells: tuple[StoredCell, ...]


@dataclass(frozen=True, kw_only=True)
class Store:
    """Directory of a study, with its cells and their outcomes."""

    directory: Path

    def place(self, id: str) -> Path:
        return self.directory / CELLS / id

    def outcome(self, id: str) -> Outcome | None:
        """Return the outcome of a cell; None if it is still to do or `cell.json` is damaged."""
        try:
            return self._recorded(id)
        except ToolkitError:
            return None

    def damage(self, id: str) -> str | None:
        """Return why the `cell.json` of a cell cannot be read.

        Return None if it can be read or the cell is still to do.
        """
        try:
            self._recorded(id)
        except ToolkitError as error:
            return error.problem
        return None

    def _recorded(self, id: str) -> Outcome | None:
        place = self.place(id)
        if not place.exists():
            return None
        return read_as(place / CELL_FILE, CELL_SCHEMA, Outcome)

    def ids(self) -> set[str]:
        """Return the ids of all finished cells, and the names of temporary directories."""
        place = self.directory / CELLS
        return {entry.name for entry in os.scandir(place)} if place.is_dir() else set()

    def write(self, study: Study, cells: Sequence[Cell]) -> None:
        """Write `study.json`: the description of the study, and its current cells."""
        body = {
            **study.description(),
            "cells": [
                {
                    "id": cell.id,
                    "step": cell.step,
                    "dimensions": cell.dimensions,
                    "described": cell.described,
                    "parents": [parent.id for parent in cell.parents],
                }
                for cell in cells
            ],
        }
        write_document(self.directory / STUDY_FILE, seal(STUDY_SCHEMA, body))

    def read(self) -> StoredStudy:
        """Read `study.json`.

        Raises SourceError if the directory is not a study or the file is invalid, IntegrityError
        if the file was altered.
        """
        if not is_study(self.directory):
            raise SourceError(
                f"{self.directory} is not the directory of a study: it has no {STUDY_FILE}.",
                hint="Give the --out of `toolkit study run`.",
            )
        return read_as(self.directory / STUDY_FILE, STUDY_SCHEMA, StoredStudy)

    def forget(self, id: str) -> None:
        """Remove the directory of a cell, so that it runs again. Raises ToolkitError on failure."""
        with wrapping_os_errors(f"remove {self.place(id)}"):
            shutil.rmtree(self.place(id), ignore_errors=False)

    def _clear(self) -> None:
        """Remove unfinished cells, and temporary files of processes that have ended."""
        for path in (self.directory / CELLS).glob(".*"):
            shutil.rmtree(path, ignore_errors=True)
        sweep_below(self.directory)

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Create and lock the directory; remove unfinished cells before and after the block.

        Yields the descriptor of the lock. A process that inherits it keeps the lock as well. Raises
        UsageError if another process has the lock, ToolkitError if the directory cannot be created.
        """
        with locked_directory(self.directory, "runs a study") as descriptor:
            with wrapping_os_errors(f"create {self.directory / CELLS}"):
                (self.directory / CELLS).mkdir(exist_ok=True)
            self._clear()
            try:
                yield descriptor
            finally:
                self._clear()


def is_study(directory: Path) -> bool:
    return (directory / STUDY_FILE).is_file()

"""A study on disk: `study.json`, and `cells/<id>/`, each written once with its `cell.json`."""

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
    SKIPPED = "skipped"  # since what it stands on failed
    TO_DO = "to do"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a cell came to, as its `cell.json` says. `output` names what lies beside it and its
    digest; `reason` is why it failed. `machine` is where it ran, in a line."""

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
    """A cell as `study.json` describes it."""

    id: Name
    step: str
    dimensions: Mapping[str, Any]
    described: str
    parents: tuple[Name, ...]


@dataclass(frozen=True, kw_only=True)
class StoredStudy:
    """What `study.json` says: the description of a study, and its cells."""

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
    """The directory of a study."""

    directory: Path

    def place(self, id: str) -> Path:
        return self.directory / CELLS / id

    def outcome(self, id: str) -> Outcome | None:
        """Return the outcome of a cell; None if it is still to do, or its record is damaged."""
        try:
            return self._recorded(id)
        except ToolkitError:
            return None

    def damage(self, id: str) -> str | None:
        """Return why the record of a cell cannot be read; None if it can, or if there is none."""
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
        """Return the ids of all cells that have a directory, from one look at the disk."""
        place = self.directory / CELLS
        return {entry.name for entry in os.scandir(place)} if place.is_dir() else set()

    def write(self, study: Study, cells: Sequence[Cell]) -> None:
        """What the study is, and which cells it comes to now."""
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
        """What `write` wrote. Raises SourceError for a directory of no study."""
        if not is_study(self.directory):
            raise SourceError(
                f"{self.directory} is not the directory of a study: it has no {STUDY_FILE}.",
                hint="Give the --out of `toolkit study run`.",
            )
        return read_as(self.directory / STUDY_FILE, STUDY_SCHEMA, StoredStudy)

    def forget(self, id: str) -> None:
        """Removes a cell, for it to be run again."""
        with wrapping_os_errors(f"remove {self.place(id)}"):
            shutil.rmtree(self.place(id), ignore_errors=False)

    def _clear(self) -> None:
        """Remove cells that were begun and not finished, and other temporary files."""
        for path in (self.directory / CELLS).glob(".*"):
            shutil.rmtree(path, ignore_errors=True)
        sweep_below(self.directory)

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the directory for one process at a time, and leave no unfinished cell in it.

        Give the descriptor of the lock: a process that inherits it holds the lock too. Raises
        UsageError if another process holds it.
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

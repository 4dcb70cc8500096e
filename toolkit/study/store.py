"""A study on disk: `study.json`, and `cells/<id>/`, each written once with its `cell.json`."""

from __future__ import annotations

import fcntl
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
from toolkit.core.errors import SourceError, UsageError
from toolkit.core.files import wrapping_os_errors
from toolkit.study.document import Plot, Study, Table
from toolkit.study.matrix import Cell

STUDY_FILE = "study.json"
STUDY_SCHEMA = "toolkit.study/1"
CELL_FILE = "cell.json"
CELL_SCHEMA = "toolkit.cell/1"
CELLS = "cells"
LOCK = ".lock"
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
        """Return what a cell came to; None for one that is still to do.

        Raises SourceError and IntegrityError for a file that is not what was written.
        """
        path = self.place(id) / CELL_FILE
        return read_as(path, CELL_SCHEMA, Outcome) if path.is_file() else None

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

    def clear(self) -> None:
        """Removes what processes that were killed had begun."""
        for path in (self.directory / CELLS).glob(".*"):
            shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Holds the directory for one process at a time; gives the descriptor of the lock, by
        which what that process starts holds it too. Raises UsageError where another has it."""
        with wrapping_os_errors(f"create {self.directory}"):
            (self.directory / CELLS).mkdir(parents=True, exist_ok=True)
            stream = (self.directory / LOCK).open("a")
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"Another process runs a study in {self.directory}.",
                    hint="Wait for it, or give another --out.",
                ) from None
            yield stream.fileno()


def is_study(directory: Path) -> bool:
    return (directory / STUDY_FILE).is_file()

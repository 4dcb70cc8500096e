"""Results on disk: `<directory>/<id>.json`, written once, never changed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from toolkit.core.documents import read_as, seal, write_document
from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.files import refuse_existing
from toolkit.core.measurement import Result

SCHEMA = "toolkit.result/3"


def prepare(directory: Path) -> None:
    """Makes the directory. Raises UsageError where none can be, before anything is measured."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UsageError(
            f"Results cannot be stored in {directory}: {error.strerror}.",
            hint="Give --out a directory that can be written.",
        ) from error


def save(directory: Path, result: Result) -> Path:
    """Writes the result, and gives the path of its file. Raises OutputExistsError."""
    path = directory / f"{result.id}.json"
    refuse_existing(path)
    write_document(path, seal(SCHEMA, vars(result)), indent=None)
    return path


def paths(directory: Path) -> list[Path]:
    """The files of a directory that are named as results are, the oldest first."""
    return sorted(directory.glob("*T*Z-*.json"))


def load(path: Path) -> Result:
    """Read a result. Raises SourceError or IntegrityError."""
    return read_as(path, SCHEMA, Result)


def load_readable(paths: Iterable[Path], warn: Callable[[str], None]) -> list[tuple[Path, Result]]:
    """Read results, and leave out those that cannot be read, with a warning that names each."""
    found = []
    for path in paths:
        try:
            found.append((path, load(path)))
        except ToolkitError as error:
            warn(f"{error.problem} It is left out.")
    return found

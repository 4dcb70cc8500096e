"""Results on disk: `<directory>/<id>.json`, written once and never changed."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from toolkit.core.documents import encoded, read_as, seal
from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.files import NewFile, refuse_existing, wrapping_os_errors, write_atomically
from toolkit.core.measurement import Result
from toolkit.core.temporary import NO_ROOM

SCHEMA = "toolkit.result/3"


LEAST_BYTES = 2**18  # least space to reserve for a result, unless it is expected to need less
MOST_BYTES = 2**26  # most space to reserve for a result


def reserve(directory: Path, id: str, expected_bytes: int) -> NewFile:
    """Create the file of a result that is yet to be measured, and reserve space for it.

    At most half of the free space is reserved. Raises UsageError if the directory is not writable,
    ToolkitError if it has too little space.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        found = os.statvfs(directory)
        size = min(expected_bytes, MOST_BYTES, found.f_bavail * found.f_frsize // 2)
        if found.f_blocks and size < min(expected_bytes, LEAST_BYTES):  # 0: size unknown
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return NewFile(directory / f"{id}.json", size)
    except OSError as error:
        kind = ToolkitError if error.errno in NO_ROOM else UsageError
        raise kind(
            f"Results cannot be stored in {directory}: {error.strerror}.",
            hint="Give --out a directory that can be written and has room.",
        ) from error


def encode(result: Result) -> bytes:
    """Return the content of a result's file."""
    return encoded(seal(SCHEMA, vars(result)), indent=None)


def save(directory: Path, result: Result) -> Path:
    """Write the result and return the path of its file. Raises OutputExistsError if it exists."""
    path = directory / f"{result.id}.json"
    refuse_existing(path)
    write_atomically(path, encode(result))
    return path


def save_elsewhere(result: Result) -> Path:
    """Write a result that cannot be stored in its directory to a new temporary directory."""
    with wrapping_os_errors(f"write to {tempfile.gettempdir()}"):
        directory = Path(tempfile.mkdtemp(prefix="toolkit-results-"))
    return save(directory, result)


def paths(directory: Path) -> list[Path]:
    """Return the files in a directory whose names are those of results, oldest first."""
    return sorted(directory.glob("*T*Z-*.json"))


def load(path: Path) -> Result:
    """Read a result. Raises SourceError if it is invalid, IntegrityError if it was altered."""
    return read_as(path, SCHEMA, Result)


def load_readable(paths: Iterable[Path], warn: Callable[[str], None]) -> list[tuple[Path, Result]]:
    """Read results; leave out each that cannot be read, with a warning that names it."""
    found = []
    for path in paths:
        try:
            found.append((path, load(path)))
        except ToolkitError as error:
            warn(f"{error.problem} It is left out.")
    return found

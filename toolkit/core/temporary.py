"""Temporary files and directories that a later process removes if their creator was killed.

Each entry has `MARK` in its name and is locked (flock) by its creator while it is in use. The
kernel releases the lock however that process ends, so an entry that can be locked is abandoned.
On a file system without such locks, abandoned entries are kept, since a sweep cannot lock them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from toolkit.core.errors import ToolkitError

MARK = "toolkit-tmp-"
NAME = re.compile(rf"(\..*\.)?{MARK}[a-z0-9_]{{8}}")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def prefix_for(name: str) -> str:
    """Return the name prefix of temporary entries that will be renamed to `name`."""
    return f".{name}.{MARK}"


def make_file(parent: Path, prefix: str) -> tuple[Path, int]:
    """Create an empty, locked file in `parent`; return its path and a descriptor for writing."""
    while True:
        descriptor, name = tempfile.mkstemp(dir=parent, prefix=prefix)
        if _lock_own(Path(name), descriptor):
            return Path(name), descriptor
        os.close(descriptor)


def make_directory(parent: Path, prefix: str) -> tuple[Path, int]:
    """Create a locked directory in `parent`, with mode 0700; return its path and a descriptor.

    The lock lasts until the descriptor is closed, even if the directory is renamed.
    """
    while True:
        path = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        with contextlib.suppress(FileNotFoundError):  # a sweep removed it before it was locked
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            if _lock_own(path, descriptor):
                return path, descriptor
            os.close(descriptor)


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """Create a directory in the system's temporary directory, and remove it after the block.

    Raises ToolkitError, which names the temporary directory, if the directory cannot be created or
    its file system is full.
    """
    parent = Path(tempfile.gettempdir())
    sweep(parent)
    try:
        path, descriptor = make_directory(parent, MARK)
    except OSError as error:
        raise _cannot_hold(parent, error) from error
    try:
        yield path
    except OSError as error:
        if error.errno in NO_ROOM and error.filename is None and _is_full(path):
            raise _cannot_hold(parent, error) from error
        raise
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def sweep(directory: Path) -> None:
    """Remove the abandoned temporary entries of `directory`, but not of its subdirectories."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if NAME.fullmatch(entry.name)]
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):  # removed meanwhile, in use, or owned by another user
            _remove_abandoned(directory / name)


def sweep_below(directory: Path) -> None:
    """Remove the abandoned temporary entries of `directory` and of all its subdirectories."""
    sweep(directory)
    for parent, names, _ in os.walk(directory):
        for name in names:
            sweep(Path(parent) / name)


def _remove_abandoned(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(path, ignore_errors=True)
        elif stat.S_ISREG(found.st_mode):
            path.unlink()
    finally:
        os.close(descriptor)


def _lock_own(path: Path, descriptor: int) -> bool:
    """Lock a new entry; return False if a sweep locked or removed it first."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _is_full(path: Path) -> bool:
    """Return whether the file system of `path` has less than 1 MiB left for this user."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize < 2**20


def _cannot_hold(directory: Path, error: OSError) -> ToolkitError:
    return ToolkitError(
        f"Could not write temporary files to {directory}: {error.strerror}.",
        hint="Free space there, or set TMPDIR to a directory with more room.",
    )

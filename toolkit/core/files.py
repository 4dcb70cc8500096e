"""Digests and locks, and atomic writing of files and directories."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import io
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import numpy as np

from toolkit.core.codec import Digest, Size
from toolkit.core.errors import IntegrityError, OutputExistsError, ToolkitError, UsageError
from toolkit.core.temporary import NO_ROOM, make_directory, make_file, prefix_for, sweep

LOCK = ".lock"
AT_FDCWD = -100  # linux/fcntl.h
RENAME_EXCHANGE = 2  # linux/fs.h


def digest_bytes(*parts: bytes | memoryview) -> str:
    """Return the SHA-256 of the concatenated parts as `sha256:<hex>`."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return f"sha256:{digest.hexdigest()}"


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as `sha256:<hex>`."""
    with path.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Entry of a manifest for one file."""

    digest: Digest
    size_bytes: Size


def record_files(directory: Path, apart: Collection[str] = ()) -> dict[str, FileRecord]:
    """Return a record of every file below `directory`, by relative POSIX path.

    Files in the subdirectories `apart` are left out.
    """
    return {
        path.relative_to(directory).as_posix(): FileRecord(
            digest=digest_file(path), size_bytes=path.stat().st_size
        )
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not any(path.is_relative_to(directory / name) for name in apart)
    }


def verify_files(directory: Path, records: Mapping[str, FileRecord]) -> None:
    """Raise IntegrityError for the first file that is missing or differs from its record."""
    for name, record in records.items():
        path = directory / name
        with wrapping_os_errors(f"check {path}"):
            got = digest_file(path) if path.is_file() else None
        if got is None:
            raise IntegrityError(
                f"Checked the files of {directory}: {name} is missing.",
                hint="Restore the file, or make the directory again.",
            )
        if got != record.digest:
            raise IntegrityError(
                f"Checked the files of {directory}: {name} has digest {got}, "
                f"expected {record.digest} ({record.size_bytes} bytes).",
                hint="The file was altered or damaged after it was written: restore it, or make "
                "the directory again.",
            )


def copy_file(directory: Path, name: str, target: Path) -> None:
    """Copy the file `name` of `directory` to `target`, and create the directories above it.

    Raises IntegrityError for a symbolic link that leads out of `directory`, so that the author of
    the directory cannot have other files of this machine copied.
    """
    with wrapping_os_errors(f"copy {directory / name}"):
        source = (directory / name).resolve()
        if not source.is_relative_to(directory.resolve()):
            raise IntegrityError(
                f"Could not copy {directory / name}: it is a link to {source}, which is not in "
                f"{directory}.",
                hint="Put the file itself there.",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def copy_directory(directory: Path, target: Path) -> None:
    """Copy all files below `directory` to `target`. Raises the errors of `copy_file`."""
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            name = path.relative_to(directory)
            copy_file(directory, name.as_posix(), target / name)


@final
class NewFile:
    """Temporary file next to `path` that replaces it on `write`, with reserved disk space.

    A reader finds either the old or the new content of `path`, never a part. As a context manager,
    it removes the temporary file on exit if nothing was written. Raises OSError if the file cannot
    be created or `reserved_bytes` are not available.
    """

    def __init__(self, path: Path, reserved_bytes: int = 0) -> None:
        self._path = path
        self._temporary: Path | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        self._temporary, descriptor = make_file(path.parent, prefix_for(path.name))
        self._stream = os.fdopen(descriptor, "wb")
        try:
            if reserved_bytes and hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(descriptor, 0, reserved_bytes)
        except BaseException:
            self.close()
            raise

    def write(self, data: bytes) -> None:
        """Write `data` as the complete content of the path. Raises ToolkitError on failure."""
        assert self._temporary is not None, "written or closed"
        with wrapping_os_errors(f"write {self._path}"):
            self._stream.write(data)
            self._stream.truncate()
            os.fsync(self._stream.fileno())
            self._temporary.chmod(0o644)
            self._temporary.replace(self._path)
            self._temporary = None
            sync(self._path.parent)

    def close(self) -> None:
        """Remove the temporary file unless it was written. Idempotent."""
        with contextlib.suppress(OSError):  # flushing the buffer to a full disk
            self._stream.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
            self._temporary = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file atomically: a reader finds either the old or the new content, never a part.

    Raises ToolkitError on failure.
    """
    with wrapping_os_errors(f"write {path}"), NewFile(path) as file:
        file.write(data)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays to an .npz file atomically."""
    stream = io.BytesIO()
    save: Any = np.savez  # its stubs take an array name for an option
    save(stream, **arrays)
    write_atomically(path, stream.getvalue())


def refuse_existing(target: Path) -> None:
    """Raise OutputExistsError unless `target` does not exist or is an empty directory."""
    with wrapping_os_errors(f"look at {target}"):
        if target.is_dir() and not any(target.iterdir()):
            return
        taken = target.exists() or target.is_symlink()
    if taken:
        raise OutputExistsError(
            f"Cannot write to {target}: it exists already, and nothing is edited in place.",
            hint="Choose another --out, or remove it first.",
        )


@contextlib.contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """Create a temporary directory next to `target` that becomes `target` if the block succeeds.

    If the block raises, Ctrl-C included, nothing is left behind. Remains of a killed process are
    removed by the next call in the same place. Raises OutputExistsError if `target` exists and is
    not an empty directory, ToolkitError if it cannot be created.
    """
    refuse_existing(target)
    attempt = f"create {target}"
    target = target.resolve()  # it may be a link to an empty directory, or "."
    missing = [parent for parent in target.parents if not parent.exists()]
    with _partial_directory(target, attempt) as partial:
        try:
            yield partial
            with wrapping_os_errors(attempt):
                refuse_existing(target)
                move_whole(partial, target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            with contextlib.suppress(OSError):  # a directory that is no longer empty is kept
                for parent in missing:
                    parent.rmdir()
            raise


@contextlib.contextmanager
def replaced_directory(target: Path) -> Iterator[Path]:
    """Create a temporary directory next to `target` that replaces it if the block succeeds.

    A reader finds either the complete old directory or the complete new one. If the block raises,
    the old one is unchanged and nothing else is left. Only use it for a `target` that the caller
    created.
    """
    attempt = f"write {target}"
    target = target.resolve()
    with _partial_directory(target, attempt) as partial:
        yield partial
        with wrapping_os_errors(attempt):
            _sync_tree(partial)
            _exchange(partial, target)
            sync(target.parent)


@contextlib.contextmanager
def _partial_directory(target: Path, attempt: str) -> Iterator[Path]:
    """Create a temporary directory next to `target`; remove whatever has its name after the block.

    An OSError of the block that reports a full disk and no file name becomes a ToolkitError.
    """
    with wrapping_os_errors(attempt):
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        partial, descriptor = make_directory(target.parent, prefix_for(target.name))
        partial.chmod(0o755)
    try:
        yield partial
    except OSError as error:
        if error.errno in NO_ROOM and error.filename is None:
            with wrapping_os_errors(attempt):
                raise
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(descriptor)


def move_whole(partial: Path, target: Path) -> None:
    """Move a directory to `target`, which is missing or empty, once its content is on the disk."""
    _sync_tree(partial)
    partial.replace(target)
    sync(target.parent)


def _exchange(partial: Path, target: Path) -> None:
    """Swap two directories: atomically on Linux, in three steps elsewhere."""
    if _exchanged_at_once(partial, target):
        return
    before = partial.with_name(f"{partial.name}-before")
    target.replace(before)
    try:
        partial.replace(target)
    except BaseException:
        before.replace(target)
        raise
    before.replace(partial)


def _exchanged_at_once(one: Path, other: Path) -> bool:
    """Swap two names atomically; return False if the system does not support it."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):  # not supported by the file system or kernel
        return False
    raise OSError(code, os.strerror(code), str(one))


def _sync_tree(directory: Path) -> None:
    """Wait until all files and directories below `directory` are on the disk."""
    for path in directory.rglob("*"):
        if path.is_symlink():
            continue
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        elif path.is_dir():
            sync(path)
    sync(directory)


def sync(path: Path) -> None:
    """Wait until a file or the entries of a directory are on disk, which a rename does not do."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not supported by the file system
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_directory(directory: Path, use: str) -> Iterator[int]:
    """Create `directory` and hold its lock, which only one process can have at a time.

    Yields the descriptor of the lock; a process that inherits it holds the lock too. `use` is what
    another process does with the directory, for the message: "runs a study". Raises UsageError if
    another process holds the lock.
    """
    with wrapping_os_errors(f"create {directory}"):
        directory.mkdir(parents=True, exist_ok=True)
        stream = (directory / LOCK).open("a")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"Another process {use} in {directory}.",
                hint="Wait for it, or give another --out.",
            ) from None
        yield stream.fileno()


@contextlib.contextmanager
def wrapping_os_errors(attempt: str) -> Iterator[None]:
    """Convert an OSError to a ToolkitError that names the attempted operation."""
    try:
        yield
    except OSError as error:
        raise ToolkitError(
            f"Could not {attempt}: {error.strerror or error}.",
            hint="Check that the place exists, is writable and has room.",
        ) from error

"""Digests, atomic files, and new directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.core.codec import Digest, Size
from toolkit.core.errors import IntegrityError, OutputExistsError, ToolkitError


def digest_bytes(data: bytes | memoryview) -> str:
    """SHA-256 as `sha256:<hex>`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content as `sha256:<hex>`."""
    with path.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """What a manifest says of one file."""

    digest: Digest
    size_bytes: Size


def record_files(directory: Path, apart: Collection[str] = ()) -> dict[str, FileRecord]:
    """A record of every file below `directory`, by its relative POSIX path, but for those in the
    directories `apart`."""
    return {
        path.relative_to(directory).as_posix(): FileRecord(
            digest=digest_file(path), size_bytes=path.stat().st_size
        )
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not any(path.is_relative_to(directory / name) for name in apart)
    }


def verify_files(directory: Path, records: Mapping[str, FileRecord]) -> None:
    """Raises IntegrityError for the first file that is missing or not as recorded."""
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
    """Copy the file `name` of `directory` to `target`, and make the directories above it.

    Raises IntegrityError for a symbolic link that leads out of `directory`: whoever made the
    directory may not choose which other files of this machine are copied.
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
    """Copy all files below `directory` to below `target`. Raises as `copy_file`."""
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            name = path.relative_to(directory)
            copy_file(directory, name.as_posix(), target / name)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file so that a reader finds the old content or the new, never a part."""
    with wrapping_os_errors(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz file, atomically, of arrays by name."""
    stream = io.BytesIO()
    save: Any = np.savez  # its stubs take a name for one of its options
    save(stream, **arrays)
    write_atomically(path, stream.getvalue())


def refuse_existing(target: Path) -> None:
    """Raises OutputExistsError unless `target` is free, or an empty directory."""
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
    """A temporary directory beside `target` that becomes `target` when the block succeeds.

    When the block raises, for Ctrl-C too, nothing is left behind.
    """
    refuse_existing(target)
    attempt = f"create {target}"
    target = target.resolve()  # a link to an empty directory, or the current one
    missing = [parent for parent in target.parents if not parent.exists()]
    with wrapping_os_errors(attempt):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.partial-"))
        partial.chmod(0o755)
    try:
        yield partial
        with wrapping_os_errors(attempt):
            for path in partial.rglob("*"):
                if path.is_file():
                    with path.open("rb") as stream:
                        os.fsync(stream.fileno())
            refuse_existing(target)
            partial.replace(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):  # one that is no longer empty stays
            for parent in missing:
                parent.rmdir()
        raise


@contextlib.contextmanager
def replaced_directory(target: Path) -> Iterator[Path]:
    """A temporary directory beside `target` that takes its place when the block succeeds.

    A reader finds the old directory or the new, whole. When the block raises, the old one stays
    as it was, and nothing else is left. The writer must be the one who made `target`.
    """
    attempt = f"write {target}"
    target = target.resolve()
    with wrapping_os_errors(attempt):
        partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.partial-"))
        partial.chmod(0o755)
    before = partial.with_name(f"{partial.name}-before")
    try:
        yield partial
        with wrapping_os_errors(attempt):
            for path in partial.rglob("*"):
                if path.is_file():
                    with path.open("rb") as stream:
                        os.fsync(stream.fileno())
            target.replace(before)
            partial.replace(target)
    except BaseException:
        if before.exists() and not target.exists():
            before.replace(target)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if target.exists():
            shutil.rmtree(before, ignore_errors=True)


@contextlib.contextmanager
def wrapping_os_errors(attempt: str) -> Iterator[None]:
    """Turns an OSError into a ToolkitError that says what was attempted."""
    try:
        yield
    except OSError as error:
        raise ToolkitError(
            f"Could not {attempt}: {error.strerror or error}.",
            hint="Check that the place exists, is writable and has room.",
        ) from error

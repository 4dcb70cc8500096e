"""Reading of zip and tar archives in memory, without unpacking to disk."""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from toolkit.core.errors import IntegrityError
from toolkit.core.files import wrapping_os_errors

DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError,
    NotImplementedError, RuntimeError,
)  # fmt: skip


def members(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Return the content of the wanted files of an archive, by name.

    The archive is a zip if its name ends in .zip, else a tar. Raises IntegrityError if it is
    damaged, or if any entry, wanted or not, is neither a regular file nor a directory or has a name
    that is absolute or leads out of the archive: such an archive cannot be trusted.
    """
    read = _zip if path.suffix == ".zip" else _tar
    with wrapping_os_errors(f"read {path}"):
        try:
            return dict(read(path, wanted))
        except (*DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise IntegrityError(
                f"Read the archive {path}: {error or type(error).__name__}.",
                hint="Remove it, so that it is downloaded again.",
            ) from error


def member(path: Path, name: str) -> bytes:
    """Return the content of one file. Raises IntegrityError as `members`, or if it is missing."""
    return require(members(path, lambda other: other == name), name, path)


def require(found: Mapping[str, bytes], name: str, path: Path) -> bytes:
    """Return `found[name]`. Raises IntegrityError if the archive at `path` does not have it."""
    if name not in found:
        raise IntegrityError(
            f"Read the archive {path}: it has no {name}.",
            hint="It is not the archive of this data set: remove it.",
        )
    return found[name]


def _tar(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for entry in archive:
            _refuse(path, entry.name, is_plain=entry.isfile() or entry.isdir())
            if entry.isfile() and wanted(entry.name):
                stream = archive.extractfile(entry)
                assert stream is not None  # because it is a regular file
                yield entry.name, stream.read()


def _zip(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 if the creator stored no mode
            _refuse(path, entry.filename, is_plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
            if not entry.is_dir() and wanted(entry.filename):
                yield entry.filename, archive.read(entry)


def _refuse(path: Path, name: str, *, is_plain: bool) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    leads_out = ".." in parts.parts or parts.is_absolute() or PureWindowsPath(name).drive
    if leads_out or not is_plain:
        what = "leads out of it" if leads_out else "is a link or a device"
        raise IntegrityError(
            f"Read the archive {path}: its entry {name!r} {what}.",
            hint="Nothing of it was used. Remove it, and get it where the data set is published.",
        )

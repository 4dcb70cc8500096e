"""Safe copies of untrusted zip archives, for libraries that load models from them.

Zip parsers can read the same file differently: they disagree on which central directory counts,
on duplicate names, and on upper and lower case. A check by one parser therefore does not cover
what another one loads. The entries that Python's zipfile reads are checked and written to a new
archive, and the library that loads the model only gets that archive.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from toolkit.core.errors import SourceError

ENCRYPTED = 0x1
CHUNK = 1 << 20

Check = Callable[[str, Callable[[], bytes]], bytes | None]


class RefusedEntry(Exception):
    """Rejection of an entry of an archive, with the reason."""


@contextlib.contextmanager
def checked_copy(
    path: Path, *, kind: str, hint: str, allowed: re.Pattern[str], most_times: int, check: Check
) -> Iterator[BinaryIO]:
    """Yield a temporary file, open for reading, with a new archive of the checked entries.

    Parameters
    ----------
    path
        The archive.
    kind
        Expected kind of file, for messages: "an exported program".
    hint
        Hint of the error for a file of another kind.
    allowed
        Pattern that the full name of every entry must match. Two names that differ only in case
        are rejected.
    most_times
        Largest total size of the unpacked entries, as a multiple of the file's size.
    check
        Called with the name of each entry and a function that reads it. Returns the bytes to write
        instead, or None to copy the entry unchanged. Raises RefusedEntry to reject it.

    Raises
    ------
    SourceError
        If the file is not a valid archive, or an entry is rejected.
    """
    with contextlib.ExitStack() as stack:
        try:
            copy = stack.enter_context(tempfile.TemporaryFile())
            with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as new:
                for entry in _accepted(path, archive, allowed, most_times):
                    _copy(archive, entry, new, check)
        except RefusedEntry as refused:
            raise SourceError(
                f"{path} is not opened: {refused}.",
                hint="Only open what you would run: export the model again from its source.",
            ) from refused
        except (
            zipfile.BadZipFile, zlib.error, ArithmeticError, AttributeError, EOFError, LookupError,
            MemoryError, NotImplementedError, OSError, RecursionError, RuntimeError, TypeError,
            ValueError,
        ) as error:  # fmt: skip
            raise SourceError(f"{path} is not {kind}: {error}.", hint=hint) from error
        copy.seek(0)
        yield copy


def _accepted(
    path: Path, archive: zipfile.ZipFile, allowed: re.Pattern[str], most_times: int
) -> list[zipfile.ZipInfo]:
    """Return the file entries. Raises RefusedEntry if their names or sizes are not allowed."""
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if sum(entry.file_size for entry in entries) > most_times * path.stat().st_size:
        raise RefusedEntry("it unpacks to many times its size")
    if min((entry.header_offset for entry in archive.infolist()), default=0):
        raise RefusedEntry("it begins with bytes that belong to none of its entries")
    seen: set[str] = set()
    for entry in entries:
        if not allowed.fullmatch(entry.filename):
            raise RefusedEntry(f"it has an entry {entry.filename!r}, which does not belong there")
        if entry.filename.lower() in seen:
            raise RefusedEntry(f"it has two entries named {entry.filename!r}, case ignored")
        if entry.flag_bits & ENCRYPTED:
            raise RefusedEntry(f"its entry {entry.filename!r} is encrypted")
        seen.add(entry.filename.lower())
    return entries


def _copy(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, new: zipfile.ZipFile, check: Check
) -> None:
    replacement = check(entry.filename, lambda: archive.read(entry))
    written = zipfile.ZipInfo(entry.filename)
    written.file_size = entry.file_size if replacement is None else len(replacement)
    with new.open(written, "w") as sink:
        if replacement is not None:
            sink.write(replacement)
            return
        with archive.open(entry) as source:  # reading to the end checks the CRC
            shutil.copyfileobj(source, sink, CHUNK)

"""Packing of the directory of a cell as bytes, to transfer it between machines."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

from toolkit.core.errors import IntegrityError
from toolkit.core.files import digest_bytes, move_whole


def packed(directory: Path) -> bytes:
    """Return all files below `directory` as a tar archive.

    Times, owners and file modes are fixed, so that equal files give equal bytes.
    """
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                entry = tarfile.TarInfo(path.relative_to(directory).as_posix())
                entry.size = path.stat().st_size
                with path.open("rb") as content:
                    archive.addfile(entry, content)
    return stream.getvalue()


def unpack(data: bytes, digest: str, directory: Path) -> None:
    """Unpack an archive of `packed` to the new directory `directory`, atomically.

    Raises IntegrityError if the digest of `data` is not `digest`.
    """
    if (got := digest_bytes(data)) != digest:
        raise IntegrityError(
            f"Received {directory.name} with digest {got}, expected {digest}.",
            hint="Run the cell again: what was sent was damaged on its way.",
        )
    partial = directory.with_name(f".{directory.name}.received")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(partial, filter="data")
    move_whole(partial, directory)

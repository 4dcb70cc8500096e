"""Reading of .npz files, including untrusted ones."""

from __future__ import annotations

import io
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from toolkit.core.errors import SourceError

SUFFIX = ".npy"
HINT = "Write one with numpy.savez(path, name_of_input=array, …), without Python objects."
UNREADABLE = (
    ArithmeticError, EOFError, LookupError, MemoryError, NotImplementedError, OSError,
    RecursionError, RuntimeError, SyntaxError, TypeError, ValueError, tokenize.TokenError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Load the arrays of an .npz file by name, without unpickling.

    Raises SourceError if the file is not a valid .npz file, has arrays of Python objects, or does
    not fit into memory when unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            needed = 2 * sum(entry.file_size for entry in entries)  # the bytes and the arrays
            import psutil

            left = psutil.virtual_memory().available
            if needed > left:
                raise SourceError(
                    f"{path} takes {needed / 1e9:,.1f} GB of memory to read; {left / 1e9:,.1f} GB "
                    "are available.",
                    hint="Give fewer rows.",
                )
            found: dict[str, np.ndarray] = {}
            for entry in entries:
                name = entry.filename.removesuffix(SUFFIX)
                if name in found or name == entry.filename:
                    raise ValueError(f"its entry {entry.filename!r} is no array, or one of two")
                found[name] = _array(archive.read(entry))
            return found
    except UNREADABLE as error:
        what = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise SourceError(
            f"{path} could not be read as an .npz file: {what}.", hint=HINT
        ) from error


def _array(content: bytes) -> np.ndarray:
    """Return the array of a .npy file. Raises ValueError if its size does not fit the content."""
    stream = io.BytesIO(content)
    array = np.lib.format.read_array(stream, allow_pickle=False)
    if array.dtype.hasobject or not array.dtype.itemsize or stream.tell() != len(content):
        raise ValueError(
            f"an array of {array.dtype} {list(array.shape)} in {len(content)} bytes is damaged"
        )
    return np.asarray(array)

"""Messages over a pipe: a JSON object, and named arrays as safetensors.

A frame is two little-endian 64-bit lengths, then that many bytes of JSON and of safetensors. The
JSON has the message, and the dtypes of the arrays that are sent as integers: those of ml_dtypes,
and strings, which are sent as code points.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from toolkit.core.documents import Json
from toolkit.core.dtypes import STRINGS, as_integers, dtype_of, is_foreign
from toolkit.core.errors import FeedError

Arrays = Mapping[str, np.ndarray]

MESSAGE, REPLY = "a message to a worker", "a reply of a worker"  # names in error messages

_HEADER = struct.Struct("<QQ")


def encode(message: Json, arrays: Arrays | None = None) -> bytes:
    """Return one frame. Raises FeedError for an array of a dtype that cannot be sent."""
    arrays = arrays or {}
    dtypes = {name: array.dtype.name for name, array in arrays.items() if _is_told(array.dtype)}
    text = json.dumps([message, dtypes]).encode()
    try:
        blob = save({name: _packed(array) for name, array in arrays.items()}) if arrays else b""
    except (KeyError, ValueError, TypeError, SafetensorError) as error:
        raise FeedError(
            f"Arrays of {sorted({array.dtype.name for array in arrays.values()})} cannot be sent "
            f"to or from a worker: {error}.",
            hint="Feed arrays of numbers, booleans or strings.",
        ) from error
    return b"".join((_HEADER.pack(len(text), len(blob)), text, blob))


def send(stream: BinaryIO, frame: bytes) -> None:
    """Write one frame and flush."""
    stream.write(frame)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[Json, dict[str, np.ndarray]] | None:
    """Read one frame; return None if the other side is gone. Raises FeedError if it is invalid."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    text_size, blob_size = _HEADER.unpack(header)
    text, blob = stream.read(text_size), stream.read(blob_size)
    if len(text) < text_size or len(blob) < blob_size:
        return None
    try:
        message, dtypes = json.loads(text)
        arrays = load(blob) if blob else {}
        return message, {
            n: _unpacked(a, dtypes[n]) if n in dtypes else a for n, a in arrays.items()
        }
    except (KeyError, ValueError, SafetensorError) as error:
        raise FeedError(
            f"A message could not be read: {type(error).__name__}: {error}.",
            hint="Rename inputs and outputs that are called like parts of the format.",
        ) from error


def _is_told(dtype: np.dtype) -> bool:
    return is_foreign(dtype) or dtype.kind in "OU"


def _packed(array: np.ndarray) -> np.ndarray:
    """Return an array that safetensors supports; strings become code points on one more axis."""
    if array.dtype.kind == "O" and not all(isinstance(item, str) for item in array.flat):
        raise TypeError("they hold objects that are no strings")
    dense = np.asarray(array, np.str_ if array.dtype.kind == "O" else None, order="C")
    if dense.dtype.kind == "U":
        return dense.reshape(-1).view(np.uint32).reshape(*dense.shape, dense.dtype.itemsize // 4)
    return as_integers(dense) if is_foreign(dense.dtype) else dense


def _unpacked(array: np.ndarray, name: str) -> np.ndarray:
    if name == STRINGS or name.startswith("str"):
        texts = array.reshape(-1).view(f"U{max(array.shape[-1], 1)}").reshape(array.shape[:-1])
        return texts.astype(object)
    return array.view(dtype_of(name))

"""Messages over a pipe: a JSON object and named arrays, the arrays as safetensors.

A frame is two little-endian 64-bit lengths, then that many bytes of JSON and of safetensors.
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
from toolkit.core.errors import FeedError

Arrays = Mapping[str, np.ndarray]

MESSAGE, REPLY = "a message to a worker", "a reply of a worker"  # as errors name them

_HEADER = struct.Struct("<QQ")


def encode(message: Json, arrays: Arrays | None = None) -> bytes:
    """One frame. Raises FeedError for an array of a dtype that safetensors does not have."""
    text = json.dumps(message).encode()
    dtypes = {array.dtype.name for array in (arrays or {}).values()}
    if foreign := dtypes - set(np.sctypeDict):
        raise FeedError(
            f"Arrays of {sorted(foreign)} cannot be sent to or from a worker.",
            hint="Let the model take and give dtypes of NumPy's own.",
        )
    try:
        blob = save({k: np.asarray(v, order="C") for k, v in arrays.items()}) if arrays else b""
    except (KeyError, ValueError, TypeError, SafetensorError) as error:
        raise FeedError(
            f"Arrays of {sorted(dtypes)} cannot be sent to a worker: {error}.",
            hint="Feed arrays of numbers or booleans.",
        ) from error
    return b"".join((_HEADER.pack(len(text), len(blob)), text, blob))


def send(stream: BinaryIO, frame: bytes) -> None:
    """Writes one frame and flushes."""
    stream.write(frame)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[Json, dict[str, np.ndarray]] | None:
    """Reads one frame; None when the other side is gone."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    text_size, blob_size = _HEADER.unpack(header)
    text, blob = stream.read(text_size), stream.read(blob_size)
    if len(text) < text_size or len(blob) < blob_size:
        return None
    try:
        return json.loads(text), load(blob) if blob else {}
    except (KeyError, ValueError, SafetensorError) as error:
        raise FeedError(
            f"A message could not be read: {type(error).__name__}: {error}.",
            hint="Rename inputs and outputs that are called like parts of the format.",
        ) from error

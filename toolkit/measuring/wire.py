"""Messages over a pipe: a JSON object and named arrays, the arrays as safetensors.

A frame is two little-endian 64-bit lengths, then that many bytes of JSON and of safetensors.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
from safetensors.numpy import load, save

from toolkit.core.documents import Json

Arrays = Mapping[str, np.ndarray]

_HEADER = struct.Struct("<QQ")


def send(stream: BinaryIO, message: Json, arrays: Arrays | None = None) -> None:
    """Writes one frame and flushes."""
    text = json.dumps(message).encode()
    blob = save({k: np.asarray(v, order="C") for k, v in arrays.items()}) if arrays else b""
    stream.write(_HEADER.pack(len(text), len(blob)))
    stream.write(text)
    stream.write(blob)
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
    return json.loads(text), load(blob) if blob else {}

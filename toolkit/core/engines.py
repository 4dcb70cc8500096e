"""Record stored beside a TensorRT engine, and the TensorRT logger of the process."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from toolkit.core.codec import Count, Digest, FileName, Size
from toolkit.core.documents import read_as, seal, write_document

ENGINE = "model.engine"
GRAPH = "model.onnx"  # the graph that was built, as engines do not expose their weights
RECORD = "engine.json"
SCHEMA = "toolkit.engine/1"
MOST_MESSAGES = 20
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}
"""NumPy dtypes by the names of TensorRT's data types."""

WHOLE = "Give a whole directory that `toolkit export` wrote, or export again."


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """Library, target GPUs and source files of an engine.

    `library` is "tensorrt" or "tensorrt-rtx". `compute_capabilities` are those of the GPUs that the
    engine supports (89 is 8.9), `gpu` is the name of the GPU that built it, None if none was
    needed. `batches` are the smallest, the usual and the largest batch, None if the model fixes it.
    `tf32` is whether float32 products may run in TF32. `files` has the digests of the engine and of
    its graph.
    """

    library: str
    version: str
    compute_capabilities: tuple[Size, ...]
    gpu: str | None
    batches: tuple[Count, ...] | None
    tf32: bool
    files: Mapping[FileName, Digest]

    def save(self, directory: Path) -> None:
        write_document(directory / RECORD, seal(SCHEMA, vars(self)))

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the record. Raises SourceError if it is missing, IntegrityError if altered."""
        return read_as(directory / RECORD, SCHEMA, cls)


@functools.cache
def log_of(trt: Any) -> Any:
    """Return the logger for the TensorRT module `trt`.

    It is cached because TensorRT keeps the first logger of a process and ignores later ones.
    """

    class Log(trt.ILogger):  # type: ignore[misc]  # the base class depends on the library
        """Logger that keeps TensorRT's last MOST_MESSAGES error messages."""

        def __init__(self) -> None:
            super().__init__()
            self._errors: deque[str] = deque(maxlen=MOST_MESSAGES)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self._errors.append(message.strip())

        def take(self) -> str:
            """Return the errors since the last call, and clear them."""
            told = "; ".join(self._errors).rstrip(".")
            self._errors.clear()
            return told or "it does not say why"

    return Log()

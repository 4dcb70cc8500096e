"""What builds engines of TensorRT and what runs them agree on: the record beside an engine, and one
logger a process."""

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
GRAPH = "model.onnx"  # the very one that was parsed, since an engine does not give its weights back
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
"""By TensorRT's names."""

WHOLE = "Give a whole directory that `toolkit export` wrote, or export again."


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """What an engine was built with, for and from.

    `library` is "tensorrt" or "tensorrt-rtx", `compute_capabilities` those of the GPUs that it runs
    on (89 is 8.9), `gpu` the name of the one that it was built on, None where that took none.
    `batches` are the least, the usual and the largest, None where the model fixes its batch; `tf32`
    is whether float32 may be multiplied in TF32, `files` the digests of the engine and its graph.
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
        """Raises SourceError for a directory without one, IntegrityError for one that was
        altered."""
        return read_as(directory / RECORD, SCHEMA, cls)


@functools.cache
def log_of(trt: Any) -> Any:
    """The logger of TensorRT, whose module this is: it keeps the first of a process, and ignores
    every later one."""

    class Log(trt.ILogger):  # type: ignore[misc]  # whichever library it is
        """Keeps the last of what went wrong, in TensorRT's words."""

        def __init__(self) -> None:
            super().__init__()
            self._errors: deque[str] = deque(maxlen=MOST_MESSAGES)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self._errors.append(message.strip())

        def take(self) -> str:
            """What went wrong since it was last asked."""
            told = "; ".join(self._errors).rstrip(".")
            self._errors.clear()
            return told or "it does not say why"

    return Log()

"""Worker process that reads and writes model files, and runs user code."""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Iterator, Mapping
from typing import final

import numpy as np

from exporters import READERS
from toolkit.core.documents import Json
from toolkit.core.errors import SourceError, WorkerLimitError
from toolkit.core.import_isolation import toolkit_imports
from toolkit.core.limits import Limits, limit_reached
from toolkit.core.memory import collect
from toolkit.measuring.workers.process import Reply, run
from toolkit.measuring.workers.worker import Worker

READING = frozenset(
    {
        "count_work",
        "describe",
        "input_ranges",
        "inventory",
        "matrix_operations",
        "output_parts",
        "unread_weights",
        "weight_parity",
        "wrong_extents",
    }
)
CONVERTING = frozenset(
    {
        "capture",
        "export",
        "expose",
        "quantise_for_litert",
        "rewrite",
        "write_for_evaluator",
    }
)
LARGEST_REPLY = 64 << 20  # bytes of JSON, which take several times that in the parent


@final
class FilesWorker:
    """Handler of the requests of isolated_backend.py, and of those of any other worker.

    The reference of an export runs here, because its framework is already imported.
    """

    def __init__(self) -> None:
        self._runtimes = Worker()

    def handle(self, message: Json, arrays: Mapping[str, np.ndarray]) -> Reply:
        command = message["command"]
        if command not in READING | CONVERTING:
            if command == "open":
                collect()  # the models read so far, which the worker would exempt from collection
            return self._runtimes.handle(message, arrays)
        with toolkit_imports():
            name = "reading" if command in READING else "writing"
            function = getattr(importlib.import_module(f"toolkit.sources.backend_{name}"), command)
        for format in message["formats"]:
            READERS.create(format)  # imports before the limits apply
        limits = None if message["limits"] is None else Limits(**message["limits"])
        with contextlib.nullcontext() if limits is None else _explained(limits, message["about"]):
            if command not in READING:
                return function(message, arrays), {}
            reply = function(message)
            if (size := len(json.dumps(reply))) > LARGEST_REPLY:
                raise SourceError(
                    f"{message['about']} describes itself in {size / 1e6:.0f} MB, expected at most "
                    f"{LARGEST_REPLY / 1e6:.0f} MB.",
                    hint="Its names, or the number of its tensors, are not those of a model.",
                )
            return reply, {}


@contextlib.contextmanager
def _explained(limits: Limits, about: str) -> Iterator[None]:
    """Apply the limits, and raise WorkerLimitError if the block reaches one of them."""
    try:
        with limits.applied():
            yield
    except Exception as error:
        reached = limit_reached(error)
        if reached is None:
            raise
        raise WorkerLimitError(
            f"{about} could not be read within the limit of {reached}. Allowed were {limits.text}.",
            hint="A damaged or hostile file can ask for any amount. If the file is sound, read it "
            "on a machine with more free memory.",
        ) from error


if __name__ == "__main__":
    run(FilesWorker())

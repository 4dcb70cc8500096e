"""Exporters and readers, each where it belongs: in this process, or in one of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, final

from exporters import EXPORTERS, READ_APART, READERS
from exporters.base import Description, Exported, ExportOptions, StoredTensor
from toolkit.core.artifact import Artifact, Format
from toolkit.core.documents import Json
from toolkit.core.errors import SourceError, WorkerDiedError
from toolkit.core.specs import Feeds, Signature
from toolkit.measuring.client import WorkerProcess
from toolkit.measuring.environment import session_options
from toolkit.steps.capture import Example
from toolkit.steps.routes import route_of

TIMEOUT_S = 3600.0
MODULE = "toolkit.steps.files_worker"


@final
class Files:
    """A context manager: leaving it ends the process that was started for those that are
    apart, which would bring TensorFlow, its threads and its messages into this one, or a user's
    code.

    Raises what exporters and readers raise, and WorkerDiedError where one ended the process.
    """

    def __init__(self) -> None:
        self._worker: WorkerProcess | None = None

    def describe(self, format: Format, path: Path) -> Description:
        if format not in READ_APART:
            return READERS.create(format).describe(path)
        found = self._ask({"command": "describe", "format": format, "path": str(path)})
        return Description(
            signature=Signature.from_json(found["signature"]),
            precision=found["precision"],
            directory=Path(found["directory"]),
            entry=found["entry"],
            files=found["files"],
        )

    def stored_tensors(self, format: Format, path: Path) -> Sequence[StoredTensor]:
        if format not in READ_APART:
            return READERS.create(format).stored_tensors(path)
        message = {"command": "stored", "format": format, "path": str(path)}
        found, arrays = self._started().ask(message)
        return [
            StoredTensor(name=name, array=arrays[str(place)], readers=tuple(readers))
            for place, (name, readers) in enumerate(found["tensors"])
        ]

    def operators(self, format: Format, path: Path) -> Mapping[str, int]:
        if format not in READ_APART:
            return READERS.create(format).operators(path)
        message = {"command": "operators", "format": format, "path": str(path)}
        return dict(self._ask(message)["operators"])

    def export(
        self, exporter: str, source: Artifact, directory: Path, options: ExportOptions
    ) -> Exported:
        if not route_of(exporter).apart:
            return EXPORTERS.create(exporter).export(source, directory, options)
        found = self._ask(
            {
                "command": "export",
                "exporter": exporter,
                "source": source.to_json(),
                "directory": str(directory.resolve()),
                "options": options.given(),
            }
        )
        return _exported(found)

    def quantise_for_litert(self, source: Artifact, directory: Path, rows: Feeds) -> Exported:
        """As `exporters.litert.LiteRt.quantise`."""
        message = {
            "command": "litert-int8",
            "source": source.to_json(),
            "directory": str(directory.resolve()),
        }
        return _exported(self._started().ask(message, rows)[0])

    def capture(self, source: str, example: Example, directory: Path) -> Mapping[str, int]:
        """As `toolkit.steps.capture.capture`, in the process apart: it runs the user's code."""
        message = {
            "command": "capture",
            "source": source,
            "example": example.to_json(),
            "directory": str(directory.resolve()),
        }
        try:
            return dict(self._ask(message)["extents"])
        except WorkerDiedError as error:
            raise SourceError(
                f"{source} ended the process that it ran in: {error.problem}",
                hint="Run that code by itself, to see what it does.",
            ) from error

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        return dict(self._started().ask(message)[0])

    def _started(self) -> WorkerProcess:
        if self._worker is None:
            threads = session_options(None).threads
            self._worker = WorkerProcess(threads=threads, timeout_s=TIMEOUT_S, module=MODULE)
        return self._worker

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._worker is not None:
            self._worker.close()


def _exported(found: Json) -> Exported:
    signature = found["signature"]
    return Exported(
        entry=found["entry"],
        precision=found["precision"],
        options=found["options"],
        signature=signature and Signature.from_json(signature),
    )

"""The process in which a user's code runs, and exporters and readers of another framework."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from exporters import EXPORTERS, READERS
from exporters.base import Exported, ExportOptions
from toolkit.core.artifact import Artifact
from toolkit.core.documents import Json
from toolkit.core.errors import WorkerError
from toolkit.measuring.process import Reply, run
from toolkit.steps.capture import Example, capture


@final
class FilesWorker:
    """Answers what toolkit/steps/files.py asks."""

    def handle(self, message: Json, arrays: Mapping[str, np.ndarray]) -> Reply:
        command = message["command"]
        if command == "export":
            return _export(message), {}
        if command == "litert-int8":
            from exporters.litert import LiteRt

            source, directory = Artifact.from_json(message["source"]), Path(message["directory"])
            return _told(LiteRt().quantise(source, directory, arrays)), {}
        if command == "capture":
            example = Example.from_json(message["example"])
            extents = capture(message["source"], example, Path(message["directory"]))
            return {"extents": dict(extents)}, {}
        reader, path = READERS.create(message["format"]), Path(message["path"])
        if command == "describe":
            found = reader.describe(path)
            return {
                **vars(found),
                "signature": found.signature.to_json(),
                "directory": str(found.directory),
                "files": list(found.files),
            }, {}
        if command == "stored":
            stored = reader.stored_tensors(path)
            tensors = [[tensor.name, list(tensor.readers)] for tensor in stored]
            return {"tensors": tensors}, {str(n): t.array for n, t in enumerate(stored)}
        if command == "operators":
            return {"operators": dict(reader.operators(path))}, {}
        raise WorkerError(f"The worker knows no command {command!r}.", hint="This is a bug.")


def _export(message: Json) -> Json:
    options: dict[str, Any] = {
        n: tuple(v) if isinstance(v, list) else v for n, v in message["options"].items()
    }
    done = EXPORTERS.create(message["exporter"]).export(
        Artifact.from_json(message["source"]),
        Path(message["directory"]),
        ExportOptions(**options),
    )
    return _told(done)


def _told(done: Exported) -> Json:
    return {**vars(done), "signature": done.signature and done.signature.to_json()}


if __name__ == "__main__":
    run(FilesWorker())

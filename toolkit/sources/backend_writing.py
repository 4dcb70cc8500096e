"""Commands of the files worker that write model files or run user code.

Each takes a message and arrays, and returns a JSON reply; `Files` has a method of the same name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporters import EXPORTERS, EXPOSERS
from exporters.base import Exported, ExportOptions
from toolkit.core.artifact import Artifact
from toolkit.core.codec import decode, encode
from toolkit.core.documents import Json
from toolkit.core.import_isolation import toolkit_imports
from toolkit.core.specs import Feeds
from toolkit.measuring.workers.wire import MESSAGE
from toolkit.sources.capture import Example
from toolkit.sources.capture import capture as capture_source


def export(message: Json, _: Feeds) -> Json:
    options: dict[str, Any] = {
        n: tuple(v) if isinstance(v, list) else v for n, v in message["options"].items()
    }
    done = EXPORTERS.create(message["exporter"]).export(
        decode(message["source"], Artifact, MESSAGE),
        Path(message["directory"]),
        ExportOptions(**options),
    )
    return _to_json(done)


def quantise_for_litert(message: Json, rows: Feeds) -> Json:
    with toolkit_imports():
        from exporters.litert import LiteRt

    source, directory = decode(message["source"], Artifact, MESSAGE), Path(message["directory"])
    return _to_json(LiteRt().quantise(source, directory, rows))


def rewrite(message: Json, _: Feeds) -> Json:
    with toolkit_imports():
        from exporters.onnx.reader import read_precision, read_signature
        from exporters.passes.rewriting import apply

    path = Path(message["path"])
    changes = apply(message["passes"], path)
    return {
        "changes": changes,
        "precision": read_precision(path),
        "signature": encode(read_signature(path)),
    }


def write_for_evaluator(message: Json, _: Feeds) -> Json:
    with toolkit_imports():
        from exporters.passes.rewriting import write_for_evaluator

    source = decode(message["source"], Artifact, MESSAGE)
    write_for_evaluator(source.path, Path(message["path"]), double=message["double"])
    return {}


def expose(message: Json, _: Feeds) -> Json:
    source = decode(message["source"], Artifact, MESSAGE)
    path, operators = EXPOSERS.create(source.format).expose(source, Path(message["directory"]))
    return {"path": str(path), "operators": dict(operators)}


def capture(message: Json, _: Feeds) -> Json:
    example = Example.from_json(message["example"])
    extents = capture_source(message["code"], example, Path(message["directory"]))
    return {"extents": dict(extents)}


def _to_json(done: Exported) -> Json:
    return {**vars(done), "signature": encode(done.signature)}

"""Client of the process that reads and writes model files, and runs user code."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, final

from exporters.base import Description, Exported, ExportOptions
from exporters.proof.weight_parity import WeightParity
from toolkit.core.artifact import PROGRAM, Artifact, Format
from toolkit.core.codec import decode, encode
from toolkit.core.documents import Json
from toolkit.core.errors import (
    SourceError,
    UsageError,
    WorkerDiedError,
    WorkerTimeoutError,
)
from toolkit.core.limits import Limits
from toolkit.core.specs import Feeds, Signature
from toolkit.core.work import Work
from toolkit.measuring.machine.environment import session_options
from toolkit.measuring.workers.client import WorkerProcess, check_timeout
from toolkit.measuring.workers.wire import REPLY

if TYPE_CHECKING:
    from toolkit.sources.capture import Example

READING_S = 300.0
CONVERTING_S = 3600.0
MODULE = "toolkit.sources.backend_worker"
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Contents of a model file.

    `operators` counts the operators by kind, and is empty for a format without a graph. `tensors`,
    `parameters` and `stored_bytes` are the number, elements and bytes of the tensors that could be
    weights and are read.
    """

    operators: Mapping[str, int]
    tensors: int
    parameters: int
    stored_bytes: int


@final
class Files:
    """Process that reads and writes model files, started when it is first needed.

    Reading is limited in memory, processor time and file size, see Limits.for_reading, and to
    `reading_s` seconds per request. Converting may use most of the machine's free memory, and
    `converting_s` seconds per request. User code, and the conversion of a checkpoint, have no
    memory limit. Model files are parsed only in the process, and their tensors stay in it.

    As a context manager, it ends the process on exit. All methods raise what readers and exporters
    raise, and WorkerTimeoutError, WorkerLimitError and WorkerDiedError for a file that takes too
    long, needs too much memory, or ends the process.
    """

    def __init__(self, reading_s: float = READING_S, converting_s: float = CONVERTING_S) -> None:
        check_timeout(reading_s)
        self._reading_s, self._converting_s = reading_s, converting_s
        self._threads = session_options(None).threads
        self._worker: WorkerProcess | None = None

    def describe(self, format: Format, path: Path) -> Description:
        """Return what a file of unknown origin declares about itself."""
        found = self._read("describe", path, [format], _size(path), format=format, path=str(path))
        return Description(
            signature=decode(found["signature"], Signature, REPLY),
            precision=found["precision"],
            directory=Path(found["directory"]),
            entry=found["entry"],
            files=found["files"],
        )

    def inventory(self, source: Artifact) -> Inventory:
        found = self._read_artifact("inventory", source)
        return Inventory(
            operators=found["operators"],
            tensors=found["tensors"],
            parameters=found["parameters"],
            stored_bytes=found["stored_bytes"],
        )

    def weight_parity(self, source: Artifact, format: Format, path: Path) -> WeightParity:
        """Find every weight of `source` by value in the file at `path`."""
        size = source.size_bytes + _size(path.parent)
        found = self._read(
            "weight_parity",
            path,
            [format, *_formats(source)],
            size,
            source=encode(source),
            format=format,
            path=str(path),
        )
        return WeightParity.from_json(found)

    def unread_weights(self, source: Artifact) -> list[str]:
        """Return the names of the weights that user code gave and that inference does not read.

        That happens, for example, if an argument of forward is left out.
        """
        if PROGRAM not in source.files:
            return list(source.options.get("unread_weights", ()))
        return list(self._read_artifact("unread_weights", source)["names"])

    def count_work(self, path: Path, shapes: Mapping[str, Sequence[int]]) -> Work:
        """Count the operations and bytes of a pass: see exporters/analysis/operation_counts.py."""
        asked = {"path": str(path), "shapes": {name: list(s) for name, s in shapes.items()}}
        found = self._read("count_work", path, [Format.ONNX], _size(path), **asked)
        return decode(found, Work, REPLY)

    def matrix_operations(
        self, source: Artifact, shapes: Mapping[str, Sequence[int]]
    ) -> int | None:
        """Count the operations of matrix products and convolutions in a pass.

        Return None for anything but an ONNX graph or a torch program, and if they cannot be
        counted.
        """
        shapes = {name: list(shape) for name, shape in shapes.items()}
        try:
            found = self._read_artifact("matrix_operations", source, shapes=shapes)
        except (SourceError, UsageError):
            return None
        return None if found["operations"] is None else int(found["operations"])

    def input_ranges(self, source: Artifact) -> Mapping[str, tuple[int, int]]:
        """Return the ranges of indices and classes: see `exporters.onnx.ranges.input_ranges`."""
        found = self._read(
            "input_ranges", source.path, [Format.ONNX], source.size_bytes, path=str(source.path)
        )
        return {name: (low, high) for name, (low, high) in found["ranges"].items()}

    def wrong_extents(self, source: Artifact) -> list[str]:
        """Return `exporters.onnx.reader.wrong_extents` of an ONNX file; empty for other formats."""
        if source.format is not Format.ONNX:
            return []
        found = self._read(
            "wrong_extents", source.path, [Format.ONNX], source.size_bytes, path=str(source.path)
        )
        return list(found["remarks"])

    def output_parts(self, source: Artifact) -> Mapping[str, tuple[int, list[int]]]:
        """Return `exporters.onnx.shapes.output_parts` of an ONNX file; empty for other formats."""
        if source.format is not Format.ONNX:
            return {}
        found = self._read(
            "output_parts", source.path, [Format.ONNX], source.size_bytes, path=str(source.path)
        )
        return {name: (axis, extents) for name, (axis, extents) in found["parts"].items()}

    def export(
        self, exporter: str, source: Artifact, directory: Path, options: ExportOptions
    ) -> Exported:
        """Export a model: see `exporters.base.Exporter.export`."""
        found = self._convert(
            "export",
            source,
            directory=str(directory.resolve()),
            exporter=exporter,
            options=options.given(),
        )
        return _exported(found)

    def quantise_for_litert(self, source: Artifact, directory: Path, rows: Feeds) -> Exported:
        """Export to LiteRT in INT8: see `exporters.litert.LiteRt.quantise`."""
        found = self._convert(
            "quantise_for_litert", source, rows, directory=str(directory.resolve())
        )
        return _exported(found)

    def rewrite(
        self, source: Artifact, passes: Sequence[str], path: Path
    ) -> tuple[list[Json], str, Signature]:
        """Run passes in place on an ONNX file made from `source`.

        Return the changes, and the new precision and signature of the file. See
        `exporters.passes.rewriting.apply`.
        """
        found = self._convert("rewrite", source, passes=list(passes), path=str(path))
        return found["changes"], found["precision"], decode(found["signature"], Signature, REPLY)

    def write_for_evaluator(self, source: Artifact, path: Path, *, double: bool) -> None:
        """Write a graph to evaluate: see `exporters.passes.rewriting.write_for_evaluator`."""
        self._convert("write_for_evaluator", source, path=str(path), double=double)

    def expose(self, source: Artifact, directory: Path) -> tuple[Path, Mapping[str, str]]:
        """Write a copy that outputs its inner tensors: see `exporters.base.Exposer.expose`."""
        found = self._convert("expose", source, directory=str(directory.resolve()))
        return Path(found["path"]), dict(found["operators"])

    def capture(self, source: str, example: Example, directory: Path) -> Mapping[str, int]:
        """Capture a model in a separate process: see `toolkit.sources.capture.capture`.

        Raises SourceError if the user code ends that process.
        """
        message: Json = {
            "command": "capture",
            "code": source,
            "example": example.to_json(),
            "directory": str(directory.resolve()),
            "formats": [],
            "limits": None,
        }
        with self._process() as worker:
            try:
                found = worker.ask(message, None, self._converting_s - self._reading_s)[0]
            except WorkerDiedError as error:
                raise SourceError(
                    f"{source} ended the process that it ran in: {error.problem}",
                    hint="Run that code by itself, to see what it does.",
                ) from error
        return dict(found["extents"])

    def prepare(self, runtime: str) -> None:
        """Start importing the framework of a runtime in the process, without waiting for it."""
        self._started().prepare({"command": "probe", "runtime": runtime})

    def process(self) -> WorkerProcess:
        """Return the process, in which runtimes can be opened as in any other worker."""
        return self._started()

    def _read_artifact(self, command: str, source: Artifact, **asked: Any) -> Json:
        return self._read(
            command,
            source.path,
            _formats(source),
            source.size_bytes,
            source=encode(source),
            **asked,
        )

    def _read(
        self, command: str, about: Path, formats: Sequence[Format], size_bytes: int, **asked: Any
    ) -> Json:
        limits = Limits.for_reading(size_bytes, self._reading_s, self._threads)
        message = {"command": command, "formats": list(formats), **asked}
        return self._ask(message, about, limits, self._reading_s)

    def _convert(
        self, command: str, source: Artifact, rows: Feeds | None = None, **asked: Any
    ) -> Json:
        code = source.format is Format.CHECKPOINT
        limits = None if code else Limits.for_converting()
        message = {"command": command, "formats": [], "source": encode(source), **asked}
        return self._ask(message, source.path, limits, self._converting_s, rows)

    def _ask(
        self,
        message: Json,
        about: Path,
        limits: Limits | None,
        seconds: float,
        rows: Feeds | None = None,
    ) -> Json:
        asked = {**message, "about": str(about), "limits": limits and limits.to_json()}
        allowed = f" Allowed were {seconds:g} s{', ' + limits.text if limits else ''}."
        done = "converted" if "directory" in message else "read"
        try:
            return dict(self._started().ask(asked, rows, seconds - self._reading_s)[0])
        except WorkerTimeoutError as error:
            raise WorkerTimeoutError(
                f"{about} could not be {done} in time.{allowed}",
                hint="Give it longer with --timeout. A damaged or hostile file can take for ever.",
            ) from error
        except WorkerDiedError as error:
            raise WorkerDiedError(
                f"{about} could not be {done}: {error.problem}{allowed}",
                hint="The file is damaged or hostile, or its library has a bug: try it with the "
                "library alone.",
            ) from error

    def _started(self) -> WorkerProcess:
        if self._worker is not None and not self._worker.answers:
            self.close()
        if self._worker is None:
            self._worker = self._process()
        return self._worker

    def _process(self) -> WorkerProcess:
        return WorkerProcess(threads=self._threads, timeout_s=self._reading_s, module=MODULE)

    def close(self) -> None:
        """End the process; the next request starts a new one."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_shared: ContextVar[Files | None] = ContextVar("_shared", default=None)


@contextlib.contextmanager
def open_files(
    reading_s: float | None = None, converting_s: float | None = None
) -> Iterator[Files]:
    """Yield the process of the surrounding block, or one that ends with this block.

    The outermost block sets the time limits, by default READING_S and CONVERTING_S.
    """
    outer = _shared.get()
    if outer is not None:
        yield outer
        return
    seconds = (
        READING_S if reading_s is None else reading_s,
        CONVERTING_S if converting_s is None else converting_s,
    )
    with Files(*seconds) as files:
        token = _shared.set(files)
        try:
            yield files
        finally:
            _shared.reset(token)


def sharing_files(step: Callable[P, R]) -> Callable[P, R]:
    """Decorate `step` so that everything within a call uses one process to read files.

    The keyword argument `timeout_s` of `step` is the time limit for reading, in seconds.
    """
    default = inspect.signature(step).parameters["timeout_s"].default

    @functools.wraps(step)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with open_files(kwargs.get("timeout_s", default)):  # type: ignore[arg-type]
            return step(*args, **kwargs)

    return run


def _formats(source: Artifact) -> list[Format]:
    """Return the formats whose readers are needed to read an artifact."""
    return [source.format, *([Format.TORCH_EXPORT] if PROGRAM in source.files else [])]


def _size(path: Path) -> int:
    """Return the size in bytes of a file, or of all files below a directory."""
    found = path.rglob("*") if path.is_dir() else [path]
    return sum(each.stat().st_size for each in found if each.is_file())


def _exported(found: Json) -> Exported:
    signature = found["signature"]
    return Exported(
        entry=found["entry"],
        precision=found["precision"],
        options=found["options"],
        signature=signature and decode(signature, Signature, REPLY),
    )

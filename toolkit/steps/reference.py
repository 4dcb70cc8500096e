"""The reference that outputs are held against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from runtimes import ACCEPTS
from toolkit.core.artifact import Artifact, Format
from toolkit.core.session import SessionOptions
from toolkit.measuring.client import WorkerProcess
from toolkit.steps.choices import nothing_runs

# By the form that is nearest to the source.
REFERENCES = {
    Format.CHECKPOINT: "torch",
    Format.TORCH_EXPORT: "torch-export",
    Format.KERAS: "tensorflow",
    Format.SAVEDMODEL: "tensorflow",
    Format.ONNX: "onnxruntime",
    Format.AOTINDUCTOR: "aotinductor",
    Format.OPENVINO: "openvino",
    Format.LITERT: "litert",
}
AS_WRITTEN = frozenset(
    {"torch", "torch-export", "onnxruntime", "litert"}
)  # run without optimisation


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A runtime, the forms that it is handed, and how; `name` says it in words."""

    runtime: str
    name: str
    forms: Sequence[Artifact]
    options: SessionOptions


def reference_runtime(artifacts: Sequence[Artifact]) -> str:
    """Torch for a model with a checkpoint; otherwise what runs the form nearest to the source.

    Raises UnavailableError where nothing here runs any of the forms.
    """
    found = _nearest(artifacts)
    if found is None:
        raise nothing_runs(artifacts)
    return found


def _nearest(artifacts: Sequence[Artifact]) -> str | None:
    formats = {artifact.format for artifact in artifacts}
    return next((name for format, name in REFERENCES.items() if format in formats), None)


def reference_of(artifacts: Sequence[Artifact], threads: int) -> Opening:
    """How the reference is opened: the graph as it is written, where that can be had."""
    runtime = reference_runtime(artifacts)
    options = SessionOptions(threads=threads, optimize=runtime not in AS_WRITTEN)
    return Opening(runtime=runtime, name=runtime, forms=artifacts, options=options)


def what_runs(artifacts: Sequence[Artifact]) -> tuple[object, ...]:
    """The same for forms whose reference is the same, and is fed the same."""
    runtime = _nearest(artifacts)
    takes = ACCEPTS.get(runtime or "", frozenset())
    opened = next((a for a in artifacts if a.format in takes), artifacts[0])
    fed = tuple((spec.name, spec.layout) for spec in artifacts[0].signature.inputs)
    return runtime, opened.digest, fed


@contextmanager
def reference_worker(
    artifacts: Sequence[Artifact], *, threads: int, timeout_s: float
) -> Iterator[WorkerProcess]:
    """A worker with the reference opened."""
    reference = reference_of(artifacts, threads)
    with WorkerProcess(threads=threads, timeout_s=timeout_s) as worker:
        worker.open(reference.runtime, artifacts, reference.options)
        yield worker

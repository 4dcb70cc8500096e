"""Choose and open the reference with which outputs are compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from runtimes import ACCEPTS
from toolkit.core.artifact import Artifact, Format
from toolkit.core.session import SessionOptions
from toolkit.measuring.workers.client import WorkerProcess
from toolkit.sources.runtime_selection import nothing_runs

# Runtime of each format; the format nearest to the source comes first.
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
)  # can run without optimisation


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A runtime, the variants it may open, and the options; `name` describes it for users."""

    runtime: str
    name: str
    forms: Sequence[Artifact]
    options: SessionOptions


def reference_runtime(artifacts: Sequence[Artifact]) -> str:
    """Return torch if there is a checkpoint, else the runtime of the format nearest to the source.

    Raises UnavailableError if no variant has a reference runtime.
    """
    found = _nearest(artifacts)
    if found is None:
        raise nothing_runs(artifacts)
    return found


def _nearest(artifacts: Sequence[Artifact]) -> str | None:
    formats = {artifact.format for artifact in artifacts}
    return next((name for format, name in REFERENCES.items() if format in formats), None)


def reference_of(artifacts: Sequence[Artifact], threads: int) -> Opening:
    """Return how to open the reference: without optimisation if the runtime can do that."""
    runtime = reference_runtime(artifacts)
    options = SessionOptions(threads=threads, optimize=runtime not in AS_WRITTEN)
    return Opening(runtime=runtime, name=runtime, forms=artifacts, options=options)


def what_runs(artifacts: Sequence[Artifact]) -> tuple[object, ...]:
    """Return a key that is equal for variants with the same reference and the same inputs."""
    runtime = _nearest(artifacts)
    takes = ACCEPTS.get(runtime or "", frozenset())
    opened = next((a for a in artifacts if a.format in takes), artifacts[0])
    fed = tuple((spec.name, spec.layout) for spec in artifacts[0].signature.inputs)
    return runtime, opened.digest, fed


@contextmanager
def reference_worker(
    artifacts: Sequence[Artifact], *, threads: int, timeout_s: float
) -> Iterator[WorkerProcess]:
    """Yield a worker in which the reference is open."""
    reference = reference_of(artifacts, threads)
    with WorkerProcess(threads=threads, timeout_s=timeout_s) as worker:
        worker.open(reference.runtime, artifacts, reference.options)
        yield worker

"""The reference that every runtime's outputs are held against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from toolkit.core.artifact import Artifact, Format
from toolkit.core.session import SessionOptions
from toolkit.measuring.client import WorkerProcess


def reference_runtime(artifacts: Sequence[Artifact]) -> str:
    """Torch for a model with a checkpoint; otherwise ONNX Runtime with optimisations off."""
    has_checkpoint = any(artifact.format is Format.CHECKPOINT for artifact in artifacts)
    return "torch" if has_checkpoint else "onnxruntime"


@contextmanager
def reference_worker(
    artifacts: Sequence[Artifact], *, threads: int, timeout_s: float
) -> Iterator[WorkerProcess]:
    """A worker with the reference opened, the graph as it is written."""
    options = SessionOptions(threads=threads, optimize=False)
    with WorkerProcess(threads=threads, timeout_s=timeout_s) as worker:
        worker.open(reference_runtime(artifacts), artifacts, options)
        yield worker

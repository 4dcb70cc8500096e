"""Contents of an artifact, and the operation count of a pass."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toolkit.core.artifact import Artifact
from toolkit.core.codec import encode
from toolkit.core.documents import Json
from toolkit.core.errors import UsageError
from toolkit.core.work import Work
from toolkit.measuring.figures.roofline_share import work_figures
from toolkit.sources.inputs import InputRequest, check_names, resolve_batches, shapes_of
from toolkit.sources.isolated_backend import READING_S, open_files, sharing_files
from toolkit.sources.operation_counts import work_of
from toolkit.sources.resolve import candidates, open_artifact


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Contents of an artifact's files.

    `operators` counts the operators by kind, and is empty for a format without a graph. `tensors`,
    `parameters` and `stored_bytes` are the number, elements and bytes of the tensors that could be
    weights and are read. `work` counts the operations and bytes of the ONNX graph at `batch`; it is
    None without a graph, or if they cannot be counted. `warnings` say why, and name outputs whose
    declared shapes are wrong.
    """

    artifact: Artifact
    operators: Mapping[str, int]
    tensors: int
    parameters: int
    stored_bytes: int
    batch: int
    work: Work | None
    warnings: Sequence[str] = ()

    def to_json(self) -> Json:
        artifact = self.artifact
        return {
            "schema": "toolkit.inspect/1",
            "path": str(artifact.path),
            "format": artifact.format,
            "model": artifact.model.name,
            "precision": artifact.precision,
            "digest": artifact.digest,
            "size_bytes": artifact.size_bytes,
            "signature": encode(artifact.signature),
            "operators": dict(self.operators),
            "tensors": self.tensors,
            "parameters": self.parameters,
            "stored_bytes": self.stored_bytes,
            "batch": self.batch,
            "work": self.work and work_figures(self.work),
            "passes": list(artifact.options.get("passes", ())),
            "parents": encode(artifact.parents),
            "warnings": list(self.warnings),
        }


@sharing_files
def inspect(
    artifact: str | os.PathLike[str],
    *,
    batch: int | None = None,
    inputs: InputRequest | None = None,
    timeout_s: float = READING_S,
) -> Inspection:
    """Read an artifact, a checkpoint or a model file in a process with limits, without running it.

    Operations are counted at `batch`, by default the one that the model or `inputs` fix, else 1,
    and at the extents that `inputs` give to dynamic axes. Reading the file may take `timeout_s`
    each time. Raises SourceError, IntegrityError, UnknownNameError, UsageError; WorkerLimitError,
    WorkerTimeoutError and WorkerDiedError for a file that needs too much memory or time, or ends
    the process.
    """
    source = open_artifact(artifact)
    request = inputs or InputRequest()
    check_names(source.signature, request)
    with open_files() as files:
        found = files.inventory(source)
        warnings = files.wrong_extents(source)
    (chosen,) = resolve_batches(source, None if batch is None else [batch], request)
    try:
        shapes = shapes_of(source.signature, chosen, request)
    except UsageError as error:  # an axis has no extent
        shapes = None
        warnings.append(f"The work is not counted: {error.problem} {error.hint}")
    return Inspection(
        artifact=source,
        operators=found.operators,
        tensors=found.tensors,
        parameters=found.parameters,
        stored_bytes=found.stored_bytes,
        batch=chosen,
        work=None if shapes is None else work_of(candidates(source), shapes, warnings),
        warnings=warnings,
    )

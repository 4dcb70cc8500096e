"""Hold the weights of two forms of a model against each other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from exporters.weight_parity import WeightParity, compare, could_be_a_weight
from toolkit.core.artifact import PROGRAM, Artifact, Format
from toolkit.core.documents import Json
from toolkit.steps.files import Files
from toolkit.steps.sources import open_artifact


@dataclass(frozen=True, kw_only=True)
class WeightComparison:
    """Whether B holds the weights of A."""

    a: Artifact
    b: Artifact
    weights: WeightParity

    def to_json(self) -> Json:
        return {
            "schema": "toolkit.parity-weights/1",
            "a": {"path": str(self.a.path), "format": self.a.format, "digest": self.a.digest},
            "b": {"path": str(self.b.path), "format": self.b.format, "digest": self.b.digest},
            **self.weights.to_json(),
        }


def parity_weights(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> WeightComparison:
    """Finds every weight of A in B, by value, and what B has beside them.

    A and B are checkpoints, artifacts or .onnx files of any formats that a reader is there for.
    Raises SourceError, IntegrityError, UnavailableError.
    """
    first, second = open_artifact(a), open_artifact(b)
    with Files() as files:
        stored = files.stored_tensors(second.format, second.path)
        weights = compare(weights_of(first, files), stored, scales_of(first, files))
    return WeightComparison(a=first, b=second, weights=weights)


def weights_of(artifact: Artifact, files: Files) -> Mapping[str, np.ndarray]:
    """The tensors of a checkpoint that its model reads; of another form, those that are read and
    could be weights."""
    stored = files.stored_tensors(artifact.format, artifact.path)
    unread = unread_weights(artifact, files)
    return {
        tensor.name: tensor.array
        for tensor in stored
        if tensor.name not in unread
        and (
            artifact.format is Format.CHECKPOINT
            or (tensor.readers and could_be_a_weight(tensor.array))
        )
    }


def scales_of(artifact: Artifact, files: Files) -> list[np.ndarray]:
    """The scales and zero points of its quantised tensors."""
    stored = files.stored_tensors(artifact.format, artifact.path)
    return [tensor.array for tensor in stored if tensor.scaling]


def unread_weights(artifact: Artifact, files: Files) -> list[str]:
    """The weights of a user's own checkpoint that its program does not read, as where an argument
    of forward is left out; a family's reads all."""
    if PROGRAM not in artifact.files:
        return []
    stored = files.stored_tensors(Format.TORCH_EXPORT, artifact.directory / PROGRAM)
    return [t.name for t in stored if not t.readers and could_be_a_weight(t.array)]

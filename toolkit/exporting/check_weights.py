"""Compare the weights of two variants of a model."""

from __future__ import annotations

import os
from dataclasses import dataclass

from exporters.proof.weight_parity import WeightParity
from toolkit.core.artifact import Artifact
from toolkit.core.documents import Json
from toolkit.sources.isolated_backend import READING_S, open_files, sharing_files
from toolkit.sources.resolve import open_artifact


@dataclass(frozen=True, kw_only=True)
class WeightComparison:
    """Comparison of the weights stored in B with those of A."""

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


@sharing_files
def parity_weights(
    a: str | os.PathLike[str], b: str | os.PathLike[str], *, timeout_s: float = READING_S
) -> WeightComparison:
    """Find every weight of A in B by value, and every other weight that B stores.

    A and B are checkpoints, artifacts or model files, in any format that has a reader. Raises
    SourceError, IntegrityError, UnavailableError.
    """
    first, second = open_artifact(a), open_artifact(b)
    with open_files() as files:
        weights = files.weight_parity(first, second.format, second.path)
    return WeightComparison(a=first, b=second, weights=weights)

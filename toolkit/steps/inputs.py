"""Inputs to measure with: real rows where the model's data set is known, else seeded noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.core.artifact import Artifact
from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.specs import Feeds, TensorSpec
from toolkit.data import DATA_SETS

SETS = 4  # rotated, so that a cache of results cannot pass for speed
SEED = 0


@dataclass(frozen=True, kw_only=True)
class InputSource:
    """Where inputs come from: `rows` [N, ...] of the one input, or None for random values."""

    artifact: Artifact
    rows: np.ndarray | None
    description: str

    def sets(self, batch: int) -> list[Feeds]:
        """SETS distinct sets of inputs of this batch; the same at every call."""
        rng = np.random.default_rng(SEED)
        specs = self.artifact.signature.inputs
        if self.rows is None:
            return [{s.name: _random(s, batch, rng) for s in specs} for _ in range(SETS)]
        picks = [rng.choice(len(self.rows), batch, batch > len(self.rows)) for _ in range(SETS)]
        return [{specs[0].name: self.rows[pick]} for pick in picks]


def input_source(artifact: Artifact) -> InputSource:
    """Test rows of the data set that the model was trained on, or random values.

    A data set that cannot be loaded here is no reason not to measure: the description says so.
    """
    data = artifact.model.data
    noise = f"random values, seed {SEED}"
    if data is not None and len(artifact.signature.inputs) == 1:
        try:
            rows = DATA_SETS.create(data).load().test.inputs
        except ToolkitError as error:
            noise += f" ({error.problem})"
        else:
            return InputSource(artifact=artifact, rows=rows, description=f"test rows of {data}")
    return InputSource(artifact=artifact, rows=None, description=noise)


def check_batch(artifact: Artifact, batch: int) -> None:
    """Raises UsageError for a batch that the artifact cannot take, or axes that are not the batch.

    Axis 0 of every input is the batch; an axis with another name has no known extent.
    """
    if batch < 1:
        raise UsageError(f"Got batch {batch}, expected 1 or more.", hint="Give --batch 1 or more.")
    for spec in artifact.signature.inputs:
        fixed = spec.shape[0] if spec.shape else None
        if isinstance(fixed, int) and fixed != batch:
            raise UsageError(
                f"Got batch {batch}, but {artifact.path} takes {spec}, batch {fixed} only.",
                hint=f"Give --batch {fixed}, or export the model with a dynamic batch.",
            )
        if any(dim is None or (isinstance(dim, str) and dim != fixed) for dim in spec.shape[1:]):
            raise UsageError(
                f"{artifact.path} takes {spec}, with dynamic axes other than the batch.",
                hint="Fix those axes in the file; only the batch can be chosen here.",
            )


def _random(spec: TensorSpec, batch: int, rng: np.random.Generator) -> np.ndarray:
    """Standard normal values; for integers and booleans 0 or 1, which any index allows."""
    shape = [dim if isinstance(dim, int) else batch for dim in spec.shape]
    if np.issubdtype(np.dtype(spec.dtype), np.floating):
        return rng.standard_normal(shape).astype(spec.dtype)
    return rng.integers(0, 2, shape).astype(spec.dtype)

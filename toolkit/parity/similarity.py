"""Similarity of outputs to a reference, for models without known correct outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from toolkit.core.documents import Json


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Similarity of an output to its reference, over all elements.

    `sqnr_db` is 10 log10 of the reference's power divided by that of the difference. It is infinite
    if both are equal, otherwise None if the reference is 0. `cosine` is that of the angle between
    the two, None if either is 0.
    """

    sqnr_db: float | None
    cosine: float | None

    def to_json(self) -> Json:
        exact = self.sqnr_db == math.inf
        return {
            "sqnr_db": None if exact else self.sqnr_db,
            "equal": exact,
            "cosine": self.cosine,
        }


def similarity(got: np.ndarray, reference: np.ndarray) -> Similarity | None:
    """Compare two arrays in float64; None unless both are finite floats of the same shape."""
    kinds = (np.issubdtype(array.dtype, np.floating) for array in (got, reference))
    if got.shape != reference.shape or not all(kinds):
        return None
    a, b = (array.astype(np.float64).ravel() for array in (got, reference))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    power, noise = float(b @ b), float(np.square(a - b).sum())
    lengths = math.sqrt(float(a @ a)) * math.sqrt(power)
    return Similarity(
        sqnr_db=math.inf if noise == 0 else 10 * math.log10(power / noise) if power else None,
        cosine=min(1.0, max(-1.0, float(a @ b) / lengths)) if lengths else None,
    )

"""How near outputs are to others where nobody knows the right ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from toolkit.core.documents import Json


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Over all elements: `sqnr_db` is 10 log10 of the reference's power over that of the
    difference, `cosine` that of the angle between the two.

    `sqnr_db` is infinite for equal ones; both are None where there is nothing to divide by.
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
    """Of two arrays of one shape, in float64; None for what is not floating-point or not finite."""
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

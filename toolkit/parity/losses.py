"""Comparison of two training runs by their losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolkit.core.learning import Learning
from toolkit.core.measurement import Agreement
from toolkit.parity.tolerances import LOSSES_WITHIN


def compare_losses(learning: Learning, reference: Learning) -> Agreement | None:
    """Compare the losses of the first steps, and the mean loss of the first epoch.

    Weights and batches at the start must be bit-identical. `max_rel` is the largest difference
    divided by the reference's loss at the same place. Returns None if one of the two finished no
    epoch. Later epochs are not compared, since rounding differences grow with every step until the
    losses of correct training runs differ too.
    """
    if not learning.losses or not reference.losses:
        return None
    mine, theirs = (_early(one) for one in (learning, reference))
    if len(mine) != len(theirs):
        return Agreement(
            passed=False,
            max_abs=None,
            max_rel=None,
            reason=f"It made {len(mine) - 1} first steps where the first row made "
            f"{len(theirs) - 1}.",
        )
    apart = np.abs(mine - theirs)
    scale = np.maximum(np.abs(theirs), np.finfo(np.float32).tiny)
    largest = float((apart / scale).max())
    reason = None
    if learning.start != reference.start:
        reason = "It did not start from the same weights and batches, bit for bit."
    elif largest > LOSSES_WITHIN:
        reason = (
            f"Its losses differ by {largest:.1%} of the first row's within its first "
            f"{len(mine) - 1} steps, or in the mean of its first epoch; "
            f"{LOSSES_WITHIN:.0%} is the bound."
        )
    return Agreement(
        passed=reason is None, max_abs=float(apart.max()), max_rel=largest, reason=reason
    )


def _early(learning: Learning) -> np.ndarray:
    values: Sequence[float | None] = (*learning.first_steps, learning.losses[0])
    return np.array(values, np.float64)

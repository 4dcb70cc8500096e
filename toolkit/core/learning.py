"""Losses of a measured training, which are stored with its times."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.core.codec import Count


@dataclass(frozen=True, kw_only=True)
class Learning:
    """Losses of a row that trains, which reveal a training that is fast but wrong.

    `rows` is the number of samples per epoch. `start` is a digest of the initial weights and of the
    batches of the first epoch. `first_steps` are the losses of the first steps of the first epoch,
    `losses` the mean loss of each epoch in order, including warm-up epochs. NaN is stored as None.
    """

    rows: Count
    start: str
    first_steps: tuple[float | None, ...] = ()
    losses: tuple[float | None, ...] = ()

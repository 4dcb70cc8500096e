"""What a measured training came to beside its times."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.core.codec import Count


@dataclass(frozen=True, kw_only=True)
class Learning:
    """The losses of a row that trains, so that one that is fast and wrong shows.

    `rows` are those of an epoch. `start` is the digest of the weights and of the first epoch's
    batches that it began with. `first_steps` are the losses of the first steps of all, `losses` the
    mean loss of each epoch, those of the warm-up included, in order; None stands for NaN in a file.
    """

    rows: Count
    start: str
    first_steps: tuple[float | None, ...] = ()
    losses: tuple[float | None, ...] = ()

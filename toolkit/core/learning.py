"""What a measured training came to beside its times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from toolkit.core.documents import Json


@dataclass(frozen=True, kw_only=True)
class Learning:
    """The losses of a row that trains, so that one that is fast and wrong shows.

    `rows` are those of an epoch. `start` is the digest of the weights and of the first epoch's
    batches that it began with. `first_steps` are the losses of the first steps of all, `losses` the
    mean loss of each epoch, those of the warm-up included, in order.
    """

    rows: int
    start: str
    first_steps: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()

    def to_json(self) -> Json:
        return {
            **asdict(self),
            "first_steps": list(self.first_steps),
            "losses": list(self.losses),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            rows=data["rows"],
            start=data["start"],
            first_steps=tuple(data["first_steps"]),
            losses=tuple(data["losses"]),
        )

"""How much a model has to do: counted from its graph, before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from toolkit.core.documents import Json


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one pass over a graph has to do, its inputs being of one shape, whatever runs it.

    `matrix_operations` are those of matrix products and convolutions, a multiplication and an
    addition being two; None where one of these could not be counted. `least_bytes` move however
    much is fused; `unfused_bytes` when every node reads its inputs and writes its outputs.
    `uncounted` says by operator of how many nodes a part is missing: every figure is then a lower
    bound.
    """

    matrix_operations: int | None
    other_operations: int
    least_bytes: int
    unfused_bytes: int
    uncounted: Mapping[str, int] = field(default_factory=dict)

    @property
    def lower_bound(self) -> bool:
        return bool(self.uncounted)

    def to_json(self) -> Json:
        return {
            "matrix_operations": self.matrix_operations,
            "other_operations": self.other_operations,
            "least_bytes": self.least_bytes,
            "unfused_bytes": self.unfused_bytes,
            "uncounted": dict(self.uncounted),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            matrix_operations=data["matrix_operations"],
            other_operations=data["other_operations"],
            least_bytes=data["least_bytes"],
            unfused_bytes=data["unfused_bytes"],
            uncounted=data["uncounted"],
        )

"""How much a model has to do: counted from its graph, before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from toolkit.core.codec import Size


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one pass over a graph has to do, its inputs being of one shape, whatever runs it.

    `matrix_operations` are those of matrix products and convolutions, a multiplication and an
    addition being two; None where one of these could not be counted. `least_bytes` move however
    much is fused; `unfused_bytes` when every node reads its inputs and writes its outputs.
    `uncounted` says by operator of how many nodes a part is missing: every figure is then a lower
    bound.
    """

    matrix_operations: Size | None
    other_operations: Size
    least_bytes: Size
    unfused_bytes: Size
    uncounted: Mapping[str, Size] = field(default_factory=dict)

    @property
    def lower_bound(self) -> bool:
        return bool(self.uncounted)

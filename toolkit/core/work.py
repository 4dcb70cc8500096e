"""Operation and byte counts of a model, derived from its graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from toolkit.core.codec import Size


@dataclass(frozen=True, kw_only=True)
class Work:
    """Operation and byte counts of one forward pass at given input shapes, for any runtime.

    `matrix_operations` counts the operations of matrix products and convolutions, with a
    multiplication and an addition as two; None if one of these nodes could not be counted.
    `least_bytes` must be moved even if all nodes are fused, `unfused_bytes` if every node reads its
    inputs and writes its outputs. `uncounted` has the number of nodes, by operator, that could not
    be counted completely; if there are any, all counts are lower bounds.
    """

    matrix_operations: Size | None
    other_operations: Size
    least_bytes: Size
    unfused_bytes: Size
    uncounted: Mapping[str, Size] = field(default_factory=dict)

    @property
    def lower_bound(self) -> bool:
        return bool(self.uncounted)

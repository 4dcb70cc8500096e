"""How fast a row worked, and how far that is from the ceilings of its machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.core.codec import encode
from toolkit.core.documents import Json
from toolkit.core.measurement import Row
from toolkit.core.work import Work


def work_figures(work: Work) -> Json:
    """What was counted, and whether it is all."""
    return {**encode(work), "lower_bound": work.lower_bound}


def rate_figures(row: Row, median_ns: float | None, environment: Mapping[str, Any]) -> Json:
    """Operations and bytes a second of one pass, and their shares of the ceilings.

    The operations are those of matrix products, as the ceilings are; of the bytes the least that
    must move. None where the time, the count or the ceiling is not known.
    """
    ceilings = environment.get("ceilings") or {}
    ran = row.provenance.precision if row.provenance else None
    operations = moved = None
    if row.work is not None and row.computes:
        operations = _rate(row.work.matrix_operations, median_ns)
        moved = _rate(row.work.least_bytes, median_ns)
    return {
        "operations_per_second": operations,
        "share_of_peak": _share(operations, ceilings.get("operations_per_second", {}).get(ran)),
        "bytes_per_second": moved,
        "share_of_copy": _share(moved, ceilings.get("copy_bytes_per_second")),
    }


def _rate(amount: int | None, nanoseconds: float | None) -> float | None:
    return None if amount is None or not nanoseconds else amount * 1e9 / nanoseconds


def _share(rate: float | None, ceiling: float | None) -> float | None:
    return None if rate is None or not ceiling else rate / ceiling

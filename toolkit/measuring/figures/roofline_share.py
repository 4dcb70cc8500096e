"""Operations and bytes per second of a row, as fractions of its machine's peaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.core.codec import encode
from toolkit.core.documents import Json
from toolkit.core.measurement import Row
from toolkit.core.work import Work


def work_figures(work: Work) -> Json:
    """Return the operation and byte counts, and whether they are only a lower bound."""
    return {**encode(work), "lower_bound": work.lower_bound}


def rate_figures(row: Row, median_ns: float | None, environment: Mapping[str, Any]) -> Json:
    """Return operations and bytes per second of one pass, and their fractions of the peaks.

    Operations are those of matrix products, as in the peaks. Bytes are the least that must move.
    A value is None if the time, the count or the peak is unknown.
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

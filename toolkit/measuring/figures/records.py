"""Rows of results as flat records for queries, tables and plots, with one column per figure.

Times are in milliseconds, sizes in MiB. Unknown figures are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.core.documents import Json
from toolkit.core.measurement import Result, Row, Scope
from toolkit.measuring.figures.summary import row_figures
from toolkit.measuring.machine.environment import machine_of

Record = dict[str, Any]
MS, MIB = 1e6, 2**20


def row_records(result: Result) -> list[Record]:
    """Return one record per row, in order."""
    return [_row(result, row) for row in result.rows]


def _row(result: Result, row: Row) -> Record:
    figures = row_figures(result, row)
    memory, work, parity = figures["memory"], figures["work"] or {}, figures["parity"] or {}
    record: Record = {
        "result": result.id,
        "created": result.created,
        "group": row.group,
        "runtime": row.runtime,
        "artifact": row.artifact,
        "artifact_digest": row.artifact_digest,
        "batch": row.batch,
        "device": row.device,
        "threads": result.plan["options"]["threads"],
        "tuning": ", ".join(f"{name}={value}" for name, value in row.tuning.items()),
        "status": str(row.status),
        "reason": row.reason,
        "precision": figures["precision"]["ran"] or figures["precision"]["requested"],
        "parity_passed": parity.get("passed"),
        "parity_max_abs": parity.get("max_abs"),
        "peak_rss_mib": _over(memory["peak_rss_bytes"], MIB),
        "artifact_mib": _over(memory["artifact_bytes"], MIB),
        "matrix_operations": work.get("matrix_operations"),
        "machine": machine_of(result.environment),
    }
    for scope, found in figures["scopes"].items():
        record |= _opening(found) if scope == Scope.OPEN else _scope(scope, found)
    if row.served is not None and figures["served"] is not None:
        record |= _served(figures["served"])
    if row.learning is not None and row.learning.losses:
        record["first_loss"], *_, record["last_loss"] = row.learning.losses * 2
    return {name: value for name, value in record.items() if value is not None}


def _scope(scope: str, found: Mapping[str, Any]) -> Record:
    """Return the figures of one scope; each name starts with that of the scope."""
    low, high = found["ci95_ns"] or (None, None)
    ratio = found["ratio"] or {}
    ci = ratio.get("ci95") or (None, None)
    figures = {
        "ms": _over(found["median_ns"], MS),
        "low_ms": _over(low, MS),
        "high_ms": _over(high, MS),
        "mean_ms": _over(found["mean_ns"], MS),
        "min_ms": _over(found["min_ns"], MS),
        "p90_ms": _over(found["p90_ns"], MS),
        "p99_ms": _over(found["p99_ns"], MS),
        "ms_per_sample": _over(found["median_ns_per_sample"], MS),
        "samples_per_s": found["samples_per_second"],
        "samples": found["samples"],
        "ratio": ratio.get("value"),
        "ratio_low": ci[0],
        "ratio_high": ci[1],
        "verdict": ratio.get("verdict") and str(ratio["verdict"]),
        "share_of_peak": found.get("share_of_peak"),
    }
    return {f"{scope}_{name}": value for name, value in figures.items()}


def _opening(found: Mapping[str, Any]) -> Record:
    names = {"median_ns": "open_ms", "import_ns": "open_import_ms", "open_ns": "open_load_ms"}
    names["first_run_ns"] = "open_first_run_ms"
    return {name: _over(found[key], MS) for key, name in names.items()}


def _served(found: Json) -> Record:
    latency = found["latency"] or {}
    return {
        "query_ms": _over(latency.get("median_ns"), MS),
        "query_p99_ms": _over(latency.get("p99_ns"), MS),
        "scenario": str(found["scenario"]),
        "asked_qps": found["asked_qps"],
        "achieved_qps": found["achieved_qps"],
        "waiting_share": found["waiting_share"],
    }


def _over(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit

"""Figures of a row, computed from its raw samples and never stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolkit.core.codec import encode
from toolkit.core.documents import Json
from toolkit.core.measurement import Measurement, Opening, Result, Row, Scope, Status
from toolkit.core.queries import Scenario
from toolkit.measuring.figures.roofline_share import rate_figures, work_figures
from toolkit.measuring.figures.rounds import median_spread, round_ratios
from toolkit.measuring.figures.statistics import (
    Ratio,
    Spread,
    median_interval,
    paired_ratio,
    percentile,
    percentile_interval,
    typical_median,
    unpaired_ratio,
)
from toolkit.measuring.load_test.summary import ratio_of_served, served_figures

SCHEMA = "toolkit.bench/1"
PERCENTILES = (90.0, 95.0, 99.0, 99.9)
SAME_ROW = Ratio(value=1.0, interval=(1.0, 1.0), wide=(1.0, 1.0))  # baseline against itself


def scope_figures(
    measurement: Measurement, batch: int, percentiles: Sequence[float] = PERCENTILES
) -> Json:
    """Return the median with its interval, mean, deviation, percentiles and rate of a scope.

    A percentile is None if there are too few samples for it. There are no intervals if the row ran
    in one process.
    """
    samples = measurement.samples
    processes = measurement.samples_of_processes
    interval = median_interval(processes)
    median = typical_median(processes)
    figures: Json = {
        "median_ns": median,
        "ci95_ns": list(interval) if interval else None,
        "mean_ns": float(samples.mean()),
        "std_ns": float(samples.std(ddof=1)) if len(samples) > 1 else None,
        "min_ns": int(samples.min()),
        "samples": len(samples),
        "warmup": len(measurement.warmup),
        "blocks": len(measurement.blocks),
        "processes": len(processes),
        "spread": _spread_figures(median_spread(measurement)),
        "settled": measurement.settled,
        "disturbance": measurement.disturbance,
        "median_ns_per_sample": median / batch if median else None,
        "samples_per_second": batch * 1e9 / median if median else None,
    }
    for q in percentiles:
        name = f"p{q:g}".replace(".", "_")
        figures[f"{name}_ns"] = percentile(samples, q)
        reached = percentile_interval(processes, q)
        figures[f"{name}_ci95_ns"] = reached and list(reached)
    return figures


def _spread_figures(spread: Spread | None) -> Json | None:
    if spread is None:
        return None
    return {"total": spread.total, "rounds": spread.rounds, "remedy": spread.remedy}


def opening_figures(openings: Sequence[Opening]) -> Json:
    """Return the median total time of openings, and the median time and growth of each part.

    The parts are the import of the runtime, the opening and the first run. There are few samples by
    nature; the smallest and the largest total show how reliable the median is.
    """
    totals = [opening.total_ns for opening in openings]
    raw = encode(list(openings))
    return {
        "median_ns": float(np.median(totals)),
        "min_ns": min(totals),
        "max_ns": max(totals),
        **{part: _median_of([opening[part] for opening in raw]) for part in raw[0]},
        "samples": len(openings),
    }


def _median_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def compare_rows(row: Row, baseline: Row, scope: Scope) -> Ratio | None:
    """Return the paired ratio of two rows, None if `doubt_of` excludes one or no round has both."""
    if doubt_of(row, scope) or doubt_of(baseline, scope):
        return None
    if row is baseline:
        return SAME_ROW
    mine, theirs = row.measurement(scope), baseline.measurement(scope)
    assert mine is not None
    assert theirs is not None
    return paired_ratio(round_ratios(mine, theirs))


def compare_apart(row: Row, baseline: Row, scope: Scope) -> Ratio | None:
    """Return the ratio of two rows that were measured separately. Does not check `doubt_of`."""
    mine, theirs = row.measurement(scope), baseline.measurement(scope)
    if mine is None or theirs is None:
        return None
    return unpaired_ratio(mine.samples_of_processes, theirs.samples_of_processes)


def doubt_of(row: Row | None, scope: Scope) -> str | None:
    """Return why a row must not be compared in this scope, None if it may be."""
    if row is None:
        return "No such row."
    if (doubt := _doubt_of_answers(row)) is not None:
        return doubt
    if row.measurement(scope) is None:
        return f"Not measured in {scope}."
    return None


def _doubt_of_answers(row: Row) -> str | None:
    """Return why a row must not be compared in any scope or scenario, None if it may be."""
    if row.status is not Status.OK:
        return row.reason or str(row.status)
    if not row.computes:
        return f"{row.runtime} does not compute the model."
    if row.parity is None:
        return "Its outputs were not checked against the reference."
    return None


def compare_served(row: Row, baseline: Row) -> Ratio | None:
    """Return the ratio of two rows in a load scenario, or None: see `ratio_of_served`.

    Also returns None for a row that failed, computes nothing or was not checked.
    """
    mine, theirs = row.served, baseline.served
    if mine is None or theirs is None or _doubt_of_answers(row) or _doubt_of_answers(baseline):
        return None
    compared = ratio_of_served(mine, theirs)
    return SAME_ROW if compared and row is baseline else compared


def median_of(row: Row | None, scope: Scope) -> float | None:
    """Return the typical median in nanoseconds, None without samples or without a row."""
    measurement = row and row.measurement(scope)
    return typical_median(measurement.samples_of_processes) if measurement else None


def baseline_of(result: Result, row: Row) -> Row:
    """Return the baseline of a row: the first row of its group."""
    return next(other for other in result.rows if other.group == row.group)


def row_figures(result: Result, row: Row, percentiles: Sequence[float] = PERCENTILES) -> Json:
    """Return all figures of a row, as users and checks read them."""
    baseline = baseline_of(result, row)
    scopes: Json = {}
    for measurement in row.measurements:
        if measurement.blocks:
            samples = row.samples_a_run(measurement.scope)
            figures = scope_figures(measurement, samples, percentiles)
            compared = compare_rows(row, baseline, measurement.scope)
            figures["ratio"] = _ratio_figures(compared, baseline, measurement.scope)
            if measurement.scope is Scope.FORWARD:
                figures |= rate_figures(row, figures["median_ns"], result.environment)
            scopes[measurement.scope] = figures
    served = None
    if row.served is not None:
        served = served_figures(row.served, row.batch, percentiles)
        compared = compare_served(row, baseline)
        served["ratio"] = _ratio_figures(compared, baseline, row.served.scenario)
    first = next(iter(scopes.values()), served)
    if row.openings:
        scopes["open"] = opening_figures(row.openings)
    ran = row.provenance.precision if row.provenance else None
    return {
        "group": row.group,
        "runtime": row.runtime,
        "artifact": row.artifact,
        "batch": row.batch,
        "tuning": dict(row.tuning),
        "status": row.status,
        "reason": row.reason,
        "precision": {"requested": row.precision_requested, "ran": ran},
        "parity": encode(row.parity),
        "scopes": scopes,
        "served": served,
        "ratio": first and first["ratio"],
        "memory": {
            "peak_rss_bytes": row.peak_rss_bytes,
            "artifact_bytes": row.artifact_bytes,
        },
        "work": row.work and work_figures(row.work),
        "learning": encode(row.learning),
        "provenance": encode(row.provenance),
    }


def _ratio_figures(compared: Ratio | None, baseline: Row, scope: Scope | Scenario) -> Json | None:
    if compared is None:
        return None
    return {
        "baseline": baseline.runtime,
        "scope": scope,
        "value": compared.value,
        "ci95": compared.interval and list(compared.interval),
        "ci99": compared.wide and list(compared.wide),
        "processes": list(compared.processes),
        "spread": _spread_figures(compared.spread),
        "verdict": compared.verdict,
    }


def result_figures(result: Result, percentiles: Sequence[float] | None = None) -> Json:
    """Return the JSON output of `toolkit bench --json`."""
    wanted = PERCENTILES if percentiles is None else percentiles
    return {
        "schema": SCHEMA,
        "id": result.id,
        "plan": dict(result.plan),
        "rows": [row_figures(result, row, wanted) for row in result.rows],
        "environment": dict(result.environment),
        "warnings": list(result.warnings),
    }

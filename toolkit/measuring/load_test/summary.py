"""Figures of a row's load scenario, computed from its raw windows and never stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolkit.core.documents import Json
from toolkit.core.queries import Scenario, Served, Window
from toolkit.measuring.figures.statistics import (
    Ratio,
    paired_ratio,
    percentile,
    percentile_interval,
)
from toolkit.measuring.load_test.queueing import (
    estimated_p99,
    holds,
    latencies,
    lateness,
    services,
    waiting_share,
)


def served_figures(served: Served, batch: int, percentiles: Sequence[float]) -> Json:
    """Return queries, rates, latency and its parts.

    None stands for a value that is unknown, or undefined in the scenario. If a rate was searched
    for, the figures are those of the highest sustained rate.
    """
    windows = figured_windows(served)
    asked, answered = sum(w.asked for w in windows), sum(w.answered for w in windows)
    seconds = sum(w.elapsed_ns for w in windows) / 1e9
    achieved = answered / seconds if seconds else None
    scheduled = served.scenario is Scenario.SERVER
    late = lateness(windows, served.concurrency) if scheduled else np.empty(0)
    return {
        "scenario": served.scenario,
        "concurrency": served.concurrency,
        "queries": {"asked": asked, "answered": answered},
        "held": asked == answered if scheduled and windows else None,
        "seconds": seconds,
        "asked_qps": windows[0].qps if windows else None,
        "achieved_qps": achieved,
        "samples_per_second": batch * achieved if achieved else None,
        "latency": _latency_figures(served, windows, percentiles),
        "service_median_ns": percentile(services(windows), 50.0),
        "waiting_share": waiting_share(windows) if scheduled else None,
        "lateness_median_ns": float(np.median(late)) if len(late) else None,
        "windows": len(windows),
        "warmup": len(served.warmup),
        "settled": served.settled,
        "search": _search_figures(served),
    }


def figured_windows(served: Served) -> Sequence[Window]:
    """Return all windows, or of a search the one with the highest sustained rate, if any."""
    if served.p99_bound_ns is None:
        return served.windows
    held = [window for window in served.windows if holds(window, served.p99_bound_ns)]
    return sorted(held, key=_rate)[-1:]


def _latency_figures(
    served: Served, windows: Sequence[Window], percentiles: Sequence[float]
) -> Json | None:
    """Return the latency figures, None in the offline scenario.

    There the latency of a query only depends on its place in the queue.
    """
    if served.scenario is Scenario.OFFLINE:
        return None
    samples = latencies(windows)
    answered = samples[np.isfinite(samples)]
    figures: Json = {
        "median_ns": _percentile(samples, 50.0),
        "ci95_ns": _interval(windows, 50.0),
        "min_ns": float(answered.min()) if len(answered) else None,
        "max_ns": float(samples.max()) if 0 < len(samples) == len(answered) else None,
        "mean_ns": float(samples.mean()) if 0 < len(samples) == len(answered) else None,
    }
    for q in percentiles:
        name = f"p{q:g}".replace(".", "_")
        figures[f"{name}_ns"] = _percentile(samples, q)
        figures[f"{name}_ci95_ns"] = _interval(windows, q)
    figures["p99_early_stopping_ns"] = estimated_p99(windows)
    return figures


def _interval(windows: Sequence[Window], q: float) -> list[float] | None:
    """Return the 95 % interval of a percentile, None if it is unknown or a query has no answer."""
    if any(window.answered < window.asked for window in windows):
        return None
    interval = percentile_interval([latencies(of_one) for of_one in _by_process(windows)], q)
    return interval and list(interval)


def _by_process(windows: Sequence[Window]) -> list[list[Window]]:
    found: dict[int, list[Window]] = {}
    for window in windows:
        found.setdefault(window.process, []).append(window)
    return list(found.values())


def _percentile(samples: np.ndarray, q: float) -> float | None:
    """Return the percentile, None with too few samples or if it is that of unanswered queries."""
    with np.errstate(invalid="ignore"):
        value = percentile(samples, q)
    return value if value is not None and np.isfinite(value) else None


def _search_figures(served: Served) -> Json | None:
    bound_ns = served.p99_bound_ns
    if bound_ns is None:
        return None
    held = [window for window in served.windows if holds(window, bound_ns)]
    others = [window for window in served.windows if not holds(window, bound_ns)]
    return {
        "p99_bound_ns": bound_ns,
        "largest_held_qps": max(map(_rate, held), default=None),
        "smallest_not_held_qps": min(map(_rate, others), default=None),
        "alone_median_ns": served.alone and _percentile(latencies([served.alone]), 50.0),
        "alone_p99_ns": served.alone and estimated_p99([served.alone]),
        "reason": None if held else _why_none(served),
        "tries": [
            {
                "qps": window.qps,
                "asked": window.asked,
                "answered": window.answered,
                "p99_early_stopping_ns": estimated_p99([window]),
                "held": holds(window, bound_ns),
            }
            for window in served.windows
        ],
    }


def _why_none(served: Served) -> str:
    """Return why no rate keeps the p99 within the bound."""
    bound = f"{(served.p99_bound_ns or 0) / 1e6:g} ms"
    if served.alone is None:
        return "none: it was not tried"
    if not served.windows:
        median, p99 = (
            f"{(value or np.nan) / 1e6:.3g} ms"
            for value in (
                _percentile(latencies([served.alone]), 50.0),
                estimated_p99([served.alone]),
            )
        )
        return f"none: served alone, a query takes {median} and its p99 is {p99}, above {bound}"
    lowest = min(map(_rate, served.windows))
    return f"none: even at {lowest:.4g} queries a second the p99 was above {bound}, or unknown"


def _rate(window: Window) -> float:
    return window.qps or 0.0


def ratio_of_served(row: Served, baseline: Served) -> Ratio | None:
    """Return the paired ratio of median latencies, or in the offline scenario of times per query.

    Returns None for a search, whose rows had different rates, for a window with unanswered queries
    or none answered, and without windows.
    """
    both = (row, baseline)
    if any(one.p99_bound_ns is not None for one in both):
        return None
    if any(w.answered < w.asked or not w.answered for one in both for w in one.windows):
        return None
    theirs = {(w.process, w.round): _typical_ns(row.scenario, w) for w in baseline.windows}
    return paired_ratio(
        [
            np.array(
                [
                    _typical_ns(row.scenario, w) / theirs[w.process, w.round]
                    for w in windows
                    if theirs.get((w.process, w.round))
                ]
            )
            for windows in _by_process(row.windows)
        ]
    )


def _typical_ns(scenario: Scenario, window: Window) -> float:
    """Return the median latency of a window, or in the offline scenario the time per query."""
    if scenario is Scenario.OFFLINE:
        return window.elapsed_ns / window.answered
    return float(np.median(latencies([window])))

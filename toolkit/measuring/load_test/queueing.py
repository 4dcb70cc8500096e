"""Latency, waiting time and delay by the harness of queries, and whether a rate was sustained.

All times are in nanoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolkit.core.queries import Window
from toolkit.measuring.figures.statistics import early_stopping


def latencies(windows: Sequence[Window]) -> np.ndarray:
    """Return the time from when each query was due to its answer; float64, inf if unanswered."""
    parts = [np.empty(0)]
    for window in windows:
        parts.append((window.finished - window.scheduled[: window.answered]).astype(np.float64))
        parts.append(np.full(window.asked - window.answered, np.inf))
    return np.concatenate(parts)


def services(windows: Sequence[Window]) -> np.ndarray:
    """Return the time from when a client took each query to its answer."""
    return np.concatenate([np.empty(0), *(w.finished - w.started for w in windows)])


def waiting_share(windows: Sequence[Window]) -> float | None:
    """Return the fraction of all latencies that was spent in the queue, None without answers."""
    waited = sum(int((w.started - w.scheduled[: w.answered]).sum()) for w in windows)
    served = float(services(windows).sum())
    return waited / (waited + served) if waited + served > 0 else None


def lateness(windows: Sequence[Window], clients: int) -> np.ndarray:
    """Return the delay of each query that found a client idle, which the harness causes.

    Queries are taken in order, so the client that takes query `i` is the one that gave answer
    `i - clients`, counted in the order of the answers.
    """
    parts = [np.empty(0)]
    for window in windows:
        due = window.scheduled[: window.answered]
        free = np.concatenate([np.zeros(clients, np.int64), np.sort(window.finished)])
        idle = due >= free[: window.answered]
        parts.append((window.started - due)[idle])
    return np.concatenate(parts)


def estimated_p99(windows: Sequence[Window]) -> float | None:
    """Return the early-stopping estimate of the p99 latency, None if unknown."""
    estimate = early_stopping(latencies(windows), 99.0)
    return estimate if estimate is not None and np.isfinite(estimate) else None


def holds(window: Window, p99_bound_ns: int) -> bool:
    """Return whether all queries were answered and the p99 is known to be within the bound."""
    estimate = estimated_p99([window])
    return window.answered == window.asked and estimate is not None and estimate <= p99_bound_ns

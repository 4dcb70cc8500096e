"""Warnings about the figures of a load scenario, each with a remedy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from toolkit.core.measurement import Row
from toolkit.core.queries import Scenario, Served
from toolkit.measuring.figures.statistics import fewest_samples
from toolkit.measuring.load_test.queueing import latencies, lateness
from toolkit.measuring.load_test.summary import figured_windows

LATE = 0.05  # largest median delay by the harness, as a fraction of the median latency


def traffic_warnings(rows: Sequence[Row]) -> list[str]:
    """Return warnings from the windows, one line per kind, scenario and batch."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.served is not None:
            for doubt, figure in _doubts(row.served):
                line = f"{row.served.scenario}, batch {row.batch}: {doubt}"
                found[line].append(f"{row.runtime} {figure}".rstrip())
    return [line.replace("{rows}", ", ".join(names)) for line, names in found.items()]


def _doubts(served: Served) -> Iterator[tuple[str, str]]:
    """Yield each warning as a line with the placeholder {rows}, and the figure of this row."""
    if not served.settled:
        yield (
            "the warm-up did not settle within 5 % (machine or runtime are not steady): {rows}. "
            "Repeat it, or fix the number with --warmup.",
            "",
        )
    windows = figured_windows(served)
    asked, answered = sum(w.asked for w in windows), sum(w.answered for w in windows)
    if answered < asked:
        seconds = sum(w.elapsed_ns for w in windows) / 1e9
        yield (
            "the rate was not held: {rows}. Give less --qps, or --find-qps.",
            f"answered {answered:,} of {asked:,} in {seconds:.1f} s",
        )
    if served.scenario is Scenario.OFFLINE or not windows:
        return
    if asked < (fewest := fewest_samples(99.0)):
        yield (
            f"too few queries for a p99, which needs {fewest}: {{rows}}. Give more --max-seconds.",
            f"({asked})",
        )
    late = lateness(windows, served.concurrency)
    typical = float(np.median(latencies(windows)))
    if served.scenario is Scenario.SERVER and len(late) and np.median(late) > LATE * typical:
        yield (
            f"queries were begun late by more than {LATE:.0%} of the median latency though a "
            "client was idle: {rows}. That is the harness and the system, not the runtime: give "
            "the clients a core of their own, or read the service times.",
            f"({np.median(late) / 1e3:.0f} of {typical / 1e3:.0f} µs)",
        )

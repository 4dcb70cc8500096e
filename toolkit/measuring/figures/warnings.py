"""Warnings about the machine and the measured figures, each with a remedy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from toolkit.core.documents import Json
from toolkit.core.measurement import Measurement, Row
from toolkit.measuring.figures.rounds import median_spread, round_ratios
from toolkit.measuring.figures.statistics import (
    DISTURBED,
    Remedy,
    fewest_samples,
    median_reach,
    spread_of,
)
from toolkit.measuring.machine.environment import available_cores
from toolkit.measuring.timing.cpu_contention import OtherLoad
from toolkit.measuring.timing.engine import Procedure
from toolkit.measuring.timing.memory import steady_growth

STOLEN_SHARE = 0.02
ONE_PROCESS = (
    "Each row ran in one process, so there are no intervals and no verdicts: processes of the same "
    "row differ. Give --processes 5 or more."
)
DRIFT = 1.05  # largest ratio between the medians of the first and the last third of the blocks


def machine_warnings(threads: int, environment: Json, clients: int = 1) -> list[str]:
    """Return warnings about this machine that apply to any measurement.

    `clients` clients are served at the same time, with `threads` threads each.
    """
    warnings = []
    who = f"{threads} threads" if clients == 1 else f"{clients} clients of {threads} threads each"

    def fitting(cores: float) -> str:
        at_most = max(1, int(cores / clients))
        fewer = "" if clients <= max(1, cores) else f" --concurrency {max(1, int(cores))}"
        return f"Give --threads {at_most}{fewer}"

    if threads * clients > (cores := available_cores()):
        warnings.append(
            f"{who} on {cores} available cores: they will wait for each other. {fitting(cores)}."
        )
    quota = environment["cpu"]["container_cores"]
    if quota is not None and threads * clients > quota:
        warnings.append(
            f"{who}, but the container may use {quota:g} cores: it is stopped when "
            f"they are spent. {fitting(quota)}, or raise the container's limit."
        )
    governor = environment["cpu"]["governor"]
    if governor not in (None, "performance"):
        warnings.append(
            f"The frequency governor is {governor}: the clock follows the load. Set it to "
            "performance, or trust ratios more than times."
        )
    return warnings


def load_warnings(where: str, load: OtherLoad) -> list[str]:
    """Return warnings about other load on the processor while `where` was measured."""
    warnings = []
    if load.others > DISTURBED:
        warnings.append(
            f"{where}: other work took {load.others:.0%} of the processor meanwhile. Stop it and "
            "measure again; until then trust ratios more than times."
        )
    if load.stolen > STOLEN_SHARE:
        warnings.append(
            f"{where}: the hypervisor took {load.stolen:.0%} of the processor for other machines. "
            "Measure on a machine that is not shared; until then trust ratios more than times."
        )
    return warnings


def row_warnings(rows: Sequence[Row], procedure: Procedure) -> list[str]:
    """Return warnings from the samples, one line per kind, batch and scope."""
    found: dict[str, list[str]] = defaultdict(list)
    counts = [len(m.samples_of_processes) for row in rows for m in row.measurements if m.blocks]
    if counts and max(counts) == 1:
        found[ONE_PROCESS] = []
    for row in rows:
        for measurement in row.measurements:
            where = f"batch {row.batch}, {measurement.scope}"
            samples = len(measurement.samples)
            processes = measurement.samples_of_processes
            half = median_reach(processes)
            if not measurement.settled:
                found[
                    f"{where}: the warm-up did not settle within 5 % (machine or runtime are not "
                    "steady): {rows}. Repeat it, or fix the number with --warmup."
                ].append(row.runtime)
            drift = drift_of(measurement)
            if not 1 / DRIFT <= drift <= DRIFT:
                found[
                    f"{where}: the times drifted between the first third of a process's blocks "
                    "and the last: {rows}. The clock or the load changed; measure longer, or again."
                ].append(f"{row.runtime} ({drift - 1:+.0%})")
            if growth := steady_growth(measurement.blocks):
                found[
                    f"{where}: the resident size grew steadily: {{rows}}. Something is kept of "
                    "every run: look for a leak, or a cache without a bound, before it serves."
                ].append(
                    f"{row.runtime} (+{growth.size_bytes / 2**20:.0f} MiB, "
                    f"{growth.bytes_per_run * 1000 / 2**10:,.0f} KiB per 1,000 runs)"
                )
            if 0 < samples < fewest_samples(50):
                found[
                    f"{where}: fewer than {fewest_samples(50)} samples: {{rows}}. "
                    "Give more --max-seconds or --runs."
                ].append(f"{row.runtime} ({samples})")
            if half is not None and half > procedure.target_ci:
                beside = [other for other in rows if other.group == row.group and other is not row]
                others = [m for other in beside if (m := other.measurement(measurement.scope))]
                remedy = _remedy_of(measurement, others, procedure)
                found[
                    f"{where}: 95 % intervals of medians wider than ±{procedure.target_ci:.1%}, "
                    "and what narrows each most: {rows}."
                ].append(f"{row.runtime} (±{half:.1%}, {remedy})")
    return [text.replace("{rows}", ", ".join(names)) for text, names in found.items()]


def drift_of(measurement: Measurement) -> float:
    """Return the median of the last third of blocks over that of the first, within processes.

    It is the median over processes with at least three blocks, 1 without any.
    """
    ratios = []
    for blocks in measurement.blocks_of_processes:
        medians = [float(np.median(block.samples)) for block in blocks]
        third = len(medians) // 3
        if third:
            first, last = float(np.median(medians[:third])), float(np.median(medians[-third:]))
            ratios += [last / first] if first > 0 and last > 0 else []
    return float(np.median(ratios)) if ratios else 1.0


def _remedy_of(
    measurement: Measurement, others: Sequence[Measurement], procedure: Procedure
) -> str:
    """Return what would narrow the interval of the median most.

    `others` are the measurements that were interleaved with this one. If the medians of its
    processes rise and fall with those of another row, the machine is the cause.
    """
    longer = "--max-seconds" if procedure.runs is None else "--runs"
    if measurement.disturbance > DISTURBED:
        return "no other work on this machine"
    spread = median_spread(measurement)
    relative = [spread_of(round_ratios(measurement, other)) for other in others]
    together = spread and any(one and one.total < spread.total / 2 for one in relative)
    if together or not 1 / DRIFT <= drift_of(measurement) <= DRIFT:
        return "a quieter machine"
    if spread is None:
        return f"more {longer} or --processes"
    return f"more {longer}" if spread.remedy is Remedy.TIME else "more --processes"

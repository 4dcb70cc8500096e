"""What makes a figure doubtful, each with a remedy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import psutil

from toolkit.core.measurement import Row
from toolkit.measuring.engine import Procedure
from toolkit.measuring.environment import available_cores
from toolkit.measuring.statistics import fewest_samples, median_interval, reach

BUSY_PERCENT = 20.0


def machine_warnings(threads: int) -> list[str]:
    """What about this machine, now, makes a latency doubtful."""
    warnings = []
    if threads > (cores := available_cores()):
        warnings.append(
            f"{threads} threads on {cores} available cores: they will wait for each other. "
            f"Give --threads {cores}."
        )
    busy = psutil.cpu_percent(interval=0.3)
    if busy > BUSY_PERCENT:
        warnings.append(
            f"Other work took {busy:.0f} % of the processor before the start: stop it, or trust "
            "ratios more than times."
        )
    return warnings


def row_warnings(rows: Sequence[Row], procedure: Procedure) -> list[str]:
    """What the samples themselves say against the figures, a line for each kind and scope."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        for measurement in row.measurements:
            where = f"batch {row.batch}, {measurement.scope}"
            samples = len(measurement.samples)
            interval = median_interval([block.samples for block in measurement.blocks])
            if not measurement.settled:
                found[
                    f"{where}: the warm-up did not settle within 5 % (machine or runtime are not "
                    "steady): {rows}. Repeat it, or fix the number with --warmup."
                ].append(row.runtime)
            if 0 < samples < fewest_samples(50):
                found[
                    f"{where}: too few samples for a median: {{rows}}. "
                    f"Give --runs {fewest_samples(50)} or more."
                ].append(f"{row.runtime} ({samples})")
            if interval is not None:
                half = reach(interval, float(np.median(measurement.samples)))
                if half > procedure.target_ci:
                    found[
                        f"{where}: 95 % intervals wider than ±{procedure.target_ci:.1%}: {{rows}}. "
                        "Stop other work, or give more --max-seconds or --runs."
                    ].append(f"{row.runtime} (±{half:.1%})")
    return [text.replace("{rows}", ", ".join(names)) for text, names in found.items()]

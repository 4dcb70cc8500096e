"""The GPUs of this machine as far as they decide a latency, asked of nvidia-smi."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from toolkit.core.documents import Json

# Name in the environment, what nvidia-smi calls it.
FIXED = {
    "name": "name",
    "compute_capability": "compute_cap",
    "memory_mib": "memory.total",
}
STATE = {
    "driver": "driver_version",
    "sm_clock_mhz": "clocks.sm",
    "max_sm_clock_mhz": "clocks.max.sm",
    "power_limit_w": "power.limit",
    "temperature_c": "temperature.gpu",
    "utilization_percent": "utilization.gpu",
    "persistence_mode": "persistence_mode",
}
BUSY_PERCENT = 5


def describe_gpus() -> tuple[list[Json], list[Json]]:
    """What each GPU is, and how each is just now: as text in nvidia-smi's own words, without units.

    Empty where there is no nvidia-smi, or where it finds none.
    """
    command = shutil.which("nvidia-smi")
    if command is None:
        return [], []
    asked = [*FIXED.values(), *STATE.values()]
    try:
        done = subprocess.run(
            [command, f"--query-gpu={','.join(asked)}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return [], []
    lines = [line.split(", ") for line in done.stdout.splitlines() if not done.returncode]
    told = [[value.strip() for value in line] for line in lines if len(line) == len(asked)]
    return (
        [dict(zip(FIXED, values, strict=False)) for values in told],
        [dict(zip(STATE, values[len(FIXED) :], strict=True)) for values in told],
    )


def gpu_warnings(states: Sequence[Json]) -> list[str]:
    """What about the GPUs makes a latency doubtful: that others use them already."""
    return [
        f"GPU {number} was {used} % busy before anything was measured: stop what else runs on it, "
        "or choose another with CUDA_VISIBLE_DEVICES."
        for number, state in enumerate(states)
        if (used := state["utilization_percent"]).isdecimal() and int(used) > BUSY_PERCENT
    ]

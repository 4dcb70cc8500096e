"""Properties and state of this machine's GPUs that affect latency, via nvidia-smi."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from toolkit.core.documents import Json

# Keys are names in the environment, values the fields of nvidia-smi.
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
    """Return the properties and the current state of each GPU, as nvidia-smi prints them.

    Values are strings without units. Both lists are empty if nvidia-smi is missing, fails or finds
    no GPU.
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
    """Return a warning for each GPU that was busy before anything was measured."""
    return [
        f"GPU {number} was {used} % busy before anything was measured: stop what else runs on it, "
        "or choose another with CUDA_VISIBLE_DEVICES."
        for number, state in enumerate(states)
        if (used := state["utilization_percent"]).isdecimal() and int(used) > BUSY_PERCENT
    ]

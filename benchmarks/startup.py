"""How long `toolkit --help` takes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from figure import Figure, Place

TOOLKIT = Path(sys.executable).with_name("toolkit")
STARTS = 20


def figures(_: Place) -> Iterator[Figure]:
    """`toolkit --help` beside an interpreter that does nothing, in turn."""
    commands = {"python -c pass": [sys.executable, "-c", "pass"], "toolkit --help": [TOOLKIT, "-h"]}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(STARTS):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            seconds[name].append(time.perf_counter() - began)
    bare, helped = (statistics.median(seconds[name]) for name in commands)
    yield Figure(
        what="toolkit --help (beside python -c pass)",
        found=f"{helped:.3f} s ({bare:.3f} s)",
        promised="at most 0.2 s",
        kept=helped <= 0.2,
    )

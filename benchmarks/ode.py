"""What an ODE layer costs: memory against steps, time against torchdiffeq."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from figure import Figure, Place

WORK = Path(__file__).with_name("ode_step.py")
FEW, MANY = 2, 64
# glibc gives every tensor back to the system when it is let go, so that the resident size is what
# is alive and not what holes the heap has.
NO_HOLES = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def figures(_: Place) -> Iterator[Figure]:
    yield _memory("adjoint")
    yield _memory("direct")
    yield from _speed()
    yield Figure(
        what="odenet untrained, gradient of adjoint apart from the exact one at 4 steps",
        found=f"{_asked('apart'):.0%}",
        promised="-",
        kept=True,
    )


def _memory(gradient: str) -> Figure:
    """A training step's peak over what the process held before it, each in a process of its own."""
    few, many = (_asked("memory", gradient, steps) / 1e6 for steps in (FEW, MANY))
    ratio = many / few
    stays = gradient == "adjoint"
    return Figure(
        what=f"odenet, growth to the peak of training steps at batch 200, {gradient}",
        found=f"{few:.0f} MB at {FEW} steps, {many:.0f} MB at {MANY}: {ratio:.2f} times",
        promised="at most 1.1 times" if stays else "grows: at least 2 times",
        kept=ratio <= 1.1 if stays else ratio >= 2,
    )


def _speed() -> Iterator[Figure]:
    """Medians of the ratios of each round, the rows having run in turn."""
    rounds = _asked("speed")
    base = rounds["torchdiffeq"]
    for name, promised in (("eager", 1.0), ("compile", 1.3)):
        ratio = statistics.median(b / own for b, own in zip(base, rounds[name], strict=True))
        milliseconds = (statistics.median(rounds[row]) / 1e6 for row in (name, "torchdiffeq"))
        yield Figure(
            what=f"odenet, training step at batch 200: adjoint, {name}, against torchdiffeq",
            found="{:.1f} ms, {:.1f} ms: {:.2f} times faster".format(*milliseconds, ratio),
            promised=f"at least {promised:.1f} times",
            kept=ratio >= promised,
        )


def _asked(*args: object) -> dict[str, list[int]] | int:
    command = [sys.executable, str(WORK), *map(str, args)]
    env = {**os.environ, **(NO_HOLES if args[0] == "memory" else {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)

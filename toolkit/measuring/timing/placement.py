"""Cores of this machine on which timed blocks begin.

A scheduler leaves a thread on its core as long as it can. If one core is slower than another, for
example because the hypervisor runs another machine on the sibling of one core, then two equal rows
differ for as long as their threads stay where they are. Blocks of the same round therefore begin on
the same core in all rows, and each round draws another one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np

from toolkit.measuring.workers.prctl import LINUX

NODES = Path("/sys/devices/system/node")


def placement_cores(cpus: frozenset[int] | None, nodes: Path = NODES) -> tuple[int, ...]:
    """Return the cores on which blocks may begin, ascending; none except on Linux.

    These are the cores in `cpus`, or all that this process may use, that belong to the same NUMA
    node as the lowest of them: memory of another node would be slower to reach.
    """
    if not LINUX:
        return ()
    allowed = os.sched_getaffinity(0) if cpus is None else cpus
    for path in nodes.glob("node*/cpulist"):
        with contextlib.suppress(OSError, ValueError):
            node = _parse_cores(path.read_text())
            if min(allowed) in node:
                return tuple(sorted(allowed & node))
    return tuple(sorted(allowed))


def _parse_cores(text: str) -> frozenset[int]:
    """Return the numbers in a list of the kernel such as `0-3,8`."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


@final
class Turns:
    """Random orders of rows and random cores, the same number of times each.

    Every second order is the reverse of the one before, and each core is used once before any is
    used again, so that even a few rounds favour no row. The order of opening alternates as well.
    """

    def __init__(self, cores: Sequence[int] = ()) -> None:
        self._rng = np.random.default_rng()
        self._cores = list(cores)
        self._next_cores: list[int] = []
        self._order: list[int] = []

    def order(self, count: int) -> list[int]:
        """Return the numbers below `count` in the order of the next round."""
        if len(self._order) == count:
            order, self._order = self._order[::-1], []
            return order
        self._order = self._rng.permutation(count).tolist()
        return self._order

    def core(self) -> int | None:
        """Return the core on which the rows of the next round begin, None without cores."""
        if self._cores and not self._next_cores:
            self._next_cores = self._rng.permutation(self._cores).tolist()
        return self._next_cores.pop() if self._next_cores else None


def begin_on(core: int | None) -> None:
    """Move this thread to `core`; it may leave it again at any time. None moves nothing.

    A core that is gone, or that this process may no longer use, is ignored.
    """
    if core is None:
        return
    before = os.sched_getaffinity(0)
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {core})
        os.sched_setaffinity(0, before)

"""Cores of this machine on which timed blocks begin.

A scheduler leaves a thread on its core as long as it can. If one core is slower than another, for
example because the hypervisor runs another machine on the sibling of one core, then two equal rows
differ for as long as their threads stay where they are. Blocks of the same round therefore begin on
the same core in all rows, and each round draws another one.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

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
    with contextlib.suppress(OSError, ValueError):
        for path in nodes.glob("node*/cpulist"):
            node = _parse_cores(path.read_text())
            if min(allowed) in node:
                return tuple(sorted(allowed & node))
    return tuple(sorted(allowed))


def _parse_cores(text: str) -> frozenset[int]:
    """Return the numbers in a list of the kernel such as `0-3,8`."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


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

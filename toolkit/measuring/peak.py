"""How fast this machine can go: matrix products and copies, with nothing else to do.

Runs in a worker process, whose thread pools were sized when it started. Other work on the machine
can only make a run slower, so the fastest of many is the one that is closest to the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from toolkit.core.errors import UsageError
from toolkit.measuring.timing import Clock

COPY = "copy"
PRECISIONS = ("float32", "bfloat16", "int8")

# What one run does, in operations or bytes, and the run.
Job = tuple[int, Callable[[], object]]

BUFFER_CACHES = 4  # a buffer is so many times larger than the last caches of all cores
SMALLEST_BUFFER, LARGEST_BUFFER = 2**26, 2**30
FEW_THREADS = 8  # are kept busy by small matrices, of which there are more runs


def peak_rate(what: str, threads: int, seconds: float, clock: Clock) -> float:
    """Operations a second of the best matrix product, or bytes read and written of the best copy.

    `what` is one of PRECISIONS, or COPY. Raises UsageError for anything else.
    """
    if what == COPY:
        return best_rate(_copies(threads, _buffer_bytes()), seconds, clock)
    if what not in PRECISIONS:
        raise UsageError(f"There is no ceiling of {what!r}.", hint=f"Known: {PRECISIONS}, {COPY}.")
    return best_rate(_products(what, threads), seconds, clock)


def best_rate(jobs: Sequence[Job], seconds: float, clock: Clock) -> float:
    """The most that any run did in a second; the jobs share `seconds` equally, in turn.

    So short runs are many, and some of them meet a moment when nothing else runs.
    """
    best = 0.0
    spent = [0] * len(jobs)
    end = clock() + round(seconds * 1e9)
    while True:
        turn = spent.index(min(spent))
        work, run = jobs[turn]
        began = clock()
        run()
        ended = clock()
        best = max(best, work * 1e9 / max(ended - began, 1))
        spent[turn] += ended - began
        if ended >= end:
            return best


def _products(precision: str, threads: int) -> list[Job]:
    """Products of square matrices of a few sizes: 2 n³ operations.

    In float32 by both libraries that torch has for it, since neither is best everywhere: its BLAS,
    and oneDNN, to which it gives a linear layer whose input has oneDNN's own layout.
    """
    import torch

    torch.set_num_threads(threads)
    jobs: list[Job] = []
    for extent in (256, 512, 1024) if threads <= FEW_THREADS else (1024, 2048, 4096):
        shape, work = (extent, extent), 2 * extent**3
        if precision == "int8":
            a, b = (torch.randint(-128, 127, shape, dtype=torch.int8) for _ in range(2))
            jobs.append((work, partial(torch._int_mm, a, b)))
        else:
            a, b = (torch.rand(shape, dtype=getattr(torch, precision)) for _ in range(2))
            jobs.append((work, partial(torch.mm, a, b, out=torch.empty_like(a))))
        if precision == "float32" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            jobs.append((work, partial(torch.nn.functional.linear, a.to_mkldnn(), b)))
    return jobs


def _copies(threads: int, size_bytes: int) -> list[Job]:
    """One buffer to another, each thread a part: every byte is read once and written once."""
    source = np.ones(size_bytes, np.uint8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    pool = ThreadPoolExecutor(threads)
    return [(2 * size_bytes, lambda: list(pool.map(lambda part: np.copyto(*part), parts)))]


def _buffer_bytes() -> int:
    """Several times the last-level caches, as far as there is memory for it."""
    wanted = max(SMALLEST_BUFFER, BUFFER_CACHES * last_caches_bytes())
    return min(wanted, LARGEST_BUFFER, int(psutil.virtual_memory().available) // 8)


def last_caches_bytes(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """The size of all caches of the last level, each counted once; 0 where that is not known."""
    found: dict[int, dict[str, int]] = {}
    for index in cpus.glob("cpu[0-9]*/cache/index[0-9]*"):
        try:
            level = int((index / "level").read_text())
            size = (index / "size").read_text().strip()
            sharers = (index / "shared_cpu_list").read_text()
            found.setdefault(level, {})[sharers] = int(size.removesuffix("K")) * 1024
        except (OSError, ValueError):
            continue
    return sum(found[max(found)].values()) if found else 0

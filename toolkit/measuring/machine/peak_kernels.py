"""Measurement of peak FLOP/s and peak bandwidth: matrix products and memory copies.

It runs in a worker process, whose thread pools were sized at startup. Other load on the machine can
only make a run slower, so the fastest of many runs is closest to the peak.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from toolkit.core.errors import UsageError
from toolkit.measuring.timing.clock import Clock

COPY = "copy"
PRECISIONS = ("float32", "bfloat16", "int8")

# Operations or bytes of one run, and the function that runs it.
Job = tuple[int, Callable[[], object]]

BUFFER_CACHES = 4  # size of a buffer, in multiples of all last-level caches
SMALLEST_BUFFER, LARGEST_BUFFER = 2**26, 2**30
FEW_THREADS = 8  # up to which small matrices are enough, and allow more runs


def peak_rate(what: str, threads: int, seconds: float, clock: Clock) -> float:
    """Return the highest rate of matrix products in operations, or of copies in bytes, per second.

    `what` is one of PRECISIONS, or COPY, which counts bytes read plus bytes written. Raises
    UsageError for anything else.
    """
    if what == COPY:
        return best_rate(_copies(threads, _buffer_bytes()), seconds, clock)
    if what not in PRECISIONS:
        raise UsageError(f"There is no ceiling of {what!r}.", hint=f"Known: {PRECISIONS}, {COPY}.")
    return best_rate(_products(what, threads), seconds, clock)


def best_rate(jobs: Sequence[Job], seconds: float, clock: Clock) -> float:
    """Return the highest rate of any single run; the jobs alternate and share `seconds` equally.

    Short jobs thus run often, and some of their runs meet a moment without other load.
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
    """Return products of square matrices of a few sizes, with 2 n³ operations each.

    For float32 both libraries of torch are tried, since neither is always the faster one: its BLAS,
    and oneDNN, which torch uses for a linear layer whose input is in oneDNN's layout.
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
    """Return a job that copies a buffer in one part per thread; bytes read and written count."""
    source = np.ones(size_bytes, np.uint8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    pool = ThreadPoolExecutor(threads)
    return [(2 * size_bytes, lambda: list(pool.map(lambda part: np.copyto(*part), parts)))]


def _buffer_bytes() -> int:
    """Return a size several times the last-level caches, at most an eighth of the free memory."""
    wanted = max(SMALLEST_BUFFER, BUFFER_CACHES * last_caches_bytes())
    return min(wanted, LARGEST_BUFFER, int(psutil.virtual_memory().available) // 8)


def last_caches_bytes(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """Return the total size of all last-level caches, each counted once, or 0 if unknown."""
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

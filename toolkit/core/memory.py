"""Resident size of this process, and available memory of the machine."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from pathlib import Path


def rss_bytes() -> int | None:
    """Return the current resident size, None on a system without /proc."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return None
    return int(pages) * resource.getpagesize()


def peak_rss_bytes() -> int:
    """Return the peak resident size.

    On Linux it is read from /proc, since ru_maxrss starts at the size of the parent process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def collect() -> None:
    """Run the garbage collector, and return freed memory to the system where glibc is used."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def reset_peak() -> bool:
    """Reset the peak to the current resident size; return False if the system does not allow it.

    On Linux, via /proc/pid/clear_refs: see proc(5).
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def available_bytes() -> int:
    """Return the memory that this process can still allocate, in the machine and its control group.

    The result is sys.maxsize if the system reports neither.
    """
    found = [sys.maxsize]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        found.append(max(0, limit - used))
    except (OSError, ValueError):  # no cgroup v2, or the limit is "max"
        pass
    return min(found)

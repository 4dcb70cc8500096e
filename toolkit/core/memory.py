"""The resident size of this process, and the memory that the machine has left."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from pathlib import Path


def rss_bytes() -> int | None:
    """The resident size now; None where the system has no /proc to tell it."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return None
    return int(pages) * resource.getpagesize()


def peak_rss_bytes() -> int:
    """The largest resident size so far.

    On Linux from /proc, since ru_maxrss starts at the size of the process that forked this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def collect() -> None:
    """Collect objects that refer to themselves, and give freed memory back to the system, where
    the C library can (glibc)."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def reset_peak() -> bool:
    """Lets the peak begin anew at the size of now; False where the system does not allow it.

    Linux: see /proc/pid/clear_refs in proc(5).
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def available_bytes() -> int:
    """Return the memory that this process can still get: the machine's, or its control group's.

    Where the system does not tell, the largest size there is.
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
    except (OSError, ValueError):  # no control group of the second version, or "max"
        pass
    return min(found)

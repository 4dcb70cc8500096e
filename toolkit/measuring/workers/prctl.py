"""Settings of a thread or process via prctl(2) on Linux; no effect on other systems."""

from __future__ import annotations

import ctypes
import signal
import sys

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_TIMERSLACK = 29


def sharpen_sleep() -> None:
    """Let sleeps of this thread end without the 50 µs of timer slack that Linux adds.

    Clients then need not spin, which would keep the interpreter's lock from other threads.
    """
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)


def go_on_without_parent() -> None:
    """Resume this process, if it is suspended, when the thread that started it ends."""
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)

"""What Linux can be asked to do for a thread or process: see prctl(2). Elsewhere nothing."""

from __future__ import annotations

import ctypes
import signal
import sys

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_TIMERSLACK = 29


def sharpen_sleep() -> None:
    """Lets sleeps of this thread end without the 50 µs by which Linux rounds them up.

    So that no client needs to spin, which would keep the interpreter's lock from the others.
    """
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)


def go_on_without_parent() -> None:
    """Lets this process, should it be stopped, go on when the thread that started it is gone."""
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)

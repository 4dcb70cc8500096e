"""Ctrl-C, held back while what was done is brought to safety."""

from __future__ import annotations

import signal
import threading
from typing import Any, final


@final
class Interrupts:
    """After `hold`, Ctrl-C does nothing until `release`; outside the main thread neither does."""

    def __init__(self) -> None:
        self._before: Any = None

    def hold(self) -> None:
        if self._before is None and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def release(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

"""Handling of Ctrl-C, SIGTERM and SIGHUP, and their deferral while results are stored."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self, final

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore the handlers of Ctrl-C, SIGTERM and SIGHUP after the block.

    A handler that a library leaves behind could change the exit code of a command, or end it even
    though its caller ignores the signal, as `nohup` does. Outside the main thread, where Python
    cannot set handlers, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@final
class Interrupts:
    """Switch that ignores Ctrl-C from `hold` to `release`; no effect outside the main thread."""

    def __init__(self) -> None:
        self._before: Any = None

    def hold(self) -> None:
        if self._before is None and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def release(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None


@final
class FirstSignalOnly:
    """Block in which only the first Ctrl-C, SIGTERM or SIGHUP takes effect; the rest are ignored.

    The first signal calls the handler that was set before the block. Signals without a Python
    handler (SIG_DFL or SIG_IGN) are left unchanged. A signal that arrives in a `with calm` block
    is handled at the end of that block. Outside the main thread, where Python cannot set handlers,
    nothing changes.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._calm = 0
        self._waiting: int | None = None
        self.received = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                if callable(before):
                    self._before[number] = before
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            return
        self.received = True
        if self._calm:
            self._waiting = number
        else:
            self._before[number](number, frame)

    @property
    def calm(self) -> Calm:
        """Block that no signal interrupts: a signal that arrives in it is handled at its end."""
        return Calm(self)

    def hold(self) -> None:
        self._calm += 1

    def release(self) -> None:
        self._calm -= 1
        if self._calm:
            return
        number, self._waiting = self._waiting, None
        if number is not None:
            self._before[number](number, None)


@final
class Calm:
    def __init__(self, owner: FirstSignalOnly) -> None:
        self._owner = owner

    def __enter__(self) -> None:
        self._owner.hold()

    def __exit__(self, *_: object) -> None:
        self._owner.release()

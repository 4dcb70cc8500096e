"""Ctrl-C, SIGTERM and SIGHUP, held back while what was done is brought to safety."""

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
    """Undo what a library within the block changes in the handling of Ctrl-C, SIGTERM and SIGHUP.

    A library's handler would end a command with another exit code, or although its caller ignores
    the signal, as `nohup` does. Outside the main thread, where no handler can be set, do nothing.
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


@final
class FirstOnly:
    """Within the block, the first Ctrl-C, SIGTERM or SIGHUP interrupts, and no other after it.

    What the signals did before decides how the first one interrupts; one that ended the process
    without a word is left alone. One that comes in a `with calm` waits for its end. Outside the
    main thread, where no handler can be set, nothing changes.
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
        """A block that no signal interrupts: one that came in it interrupts at its end."""
        return Calm(self)

    def hold(self) -> None:
        self._calm += 1

    def release(self) -> None:
        self._calm -= 1
        number, self._waiting = self._waiting, None
        if number is not None:
            self._before[number](number, None)


@final
class Calm:
    def __init__(self, owner: FirstOnly) -> None:
        self._owner = owner

    def __enter__(self) -> None:
        self._owner.hold()

    def __exit__(self, *_: object) -> None:
        self._owner.release()

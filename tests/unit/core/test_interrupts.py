"""Signals that are handled once, and not within a calm block."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from toolkit.core.interrupts import FirstSignalOnly


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """Numbers of the signals that reached the handler that was set before."""
    numbers: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGINT, before)


def test_a_signal_in_nested_calm_blocks_is_handled_at_the_end_of_the_outer(
    handled: list[int],
) -> None:
    with FirstSignalOnly() as signals:
        with signals.calm:
            with signals.calm:
                os.kill(os.getpid(), signal.SIGINT)
            assert (signals.received, handled) == (True, [])
        assert handled == [signal.SIGINT]


def test_only_the_first_signal_is_handled(handled: list[int]) -> None:
    with FirstSignalOnly():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert handled == [signal.SIGINT]
    os.kill(os.getpid(), signal.SIGINT)
    assert len(handled) == 2

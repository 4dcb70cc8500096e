"""The timed loop of the scopes; that of the load scenarios is in serving.py."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from toolkit.core.measurement import Scope
from toolkit.core.session import Session
from toolkit.core.specs import Feeds

Clock = Callable[[], int]
"""Nanoseconds from any origin, never falling."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Consecutive runs, int64 nanoseconds each, and the resident size of their process after them.

    The size is None where the system does not tell it.
    """

    samples: np.ndarray
    rss_bytes: int | None


def time_block(
    session: Session, scope: Scope, feeds: Sequence[Feeds], count: int, first: int, clock: Clock
) -> np.ndarray:
    """The nanoseconds of `count` consecutive runs, int64.

    FORWARD uploads one set of inputs, then times pass and synchronisation. END_TO_END times the
    whole way, each run from the next set of inputs. `first` says which set comes first. Python's
    garbage collector rests meanwhile.
    """
    samples: list[int] = []
    with collector_at_rest():
        if scope is Scope.FORWARD:
            session.upload(feeds[first % len(feeds)])
            forward, synchronize = session.forward, session.synchronize
            for _ in range(count):
                began = clock()
                forward()
                synchronize()
                samples.append(clock() - began)
        else:
            run = session.run
            for index in range(first, first + count):
                inputs = feeds[index % len(feeds)]
                began = clock()
                run(inputs)
                samples.append(clock() - began)
    return np.array(samples, np.int64)


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Collects Python's garbage now, and none until the block is left."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()

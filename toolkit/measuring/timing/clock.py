"""Timed loop of the scopes; the one of the load scenarios is in serving.py."""

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
"""Function that returns nanoseconds since an arbitrary origin and never decreases."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Times of consecutive runs in int64 nanoseconds, and the resident size of the process after.

    The size is None if the system does not report it.
    """

    samples: np.ndarray
    rss_bytes: int | None


def time_block(
    session: Session, scope: Scope, feeds: Sequence[Feeds], count: int, first: int, clock: Clock
) -> np.ndarray:
    """Return the int64 nanoseconds of `count` consecutive runs.

    FORWARD uploads one set of inputs, then times forward pass and synchronisation. END_TO_END times
    complete runs, each with the next set of inputs. `first` is the index of the first set, modulo
    the number of sets. Python's garbage collector is disabled meanwhile.
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
    """Collect Python's garbage now, and disable the collector inside the block."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()

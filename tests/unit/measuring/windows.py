"""Windows that are made by hand, in milliseconds; each is of a process of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolkit.core.queries import Window

MS = 1_000_000


def window(
    *,
    scheduled: Sequence[float],
    started: Sequence[float],
    finished: Sequence[float],
    number: int = 0,
    qps: float | None = None,
) -> Window:
    def times(values: Sequence[float]) -> np.ndarray:
        return np.array([round(value * MS) for value in values], np.int64)

    return Window(
        round=number,
        qps=qps,
        lead=np.array([MS], np.int64),
        scheduled=times(scheduled),
        started=times(started),
        finished=times(finished),
        process=number,
    )

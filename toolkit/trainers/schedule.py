"""Learning-rate schedules: `constant`, `cosine`, or `step:30,45:0.1`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from toolkit.core.errors import UsageError

Shape = Callable[[int, int, int], np.ndarray]
"""(epoch, steps per epoch, number of epochs) -> factor of the learning rate, float64 [steps]."""


def parse_schedule(text: str) -> Shape:
    """Return the schedule that `text` describes. Raises UsageError for an invalid text."""
    name, _, rest = text.partition(":")
    if text == "constant":
        return lambda epoch, steps, epochs: np.ones(steps)
    if text == "cosine":
        return _cosine
    if name == "step":
        return _steps(text, rest)
    raise _refusal(text)


def _cosine(epoch: int, steps: int, epochs: int) -> np.ndarray:
    """Return factors of half a cosine, from 1 at the first step of the run to 0 after the last."""
    done = (epoch * steps + np.arange(steps)) / (epochs * steps)
    return np.asarray((1 + np.cos(np.pi * done)) / 2)


def _steps(text: str, rest: str) -> Shape:
    """Parse a step schedule.

    `step:30,45:0.1` multiplies the learning rate by 0.1 from epoch 30 on, and again from epoch 45
    on; epochs count from 0.
    """
    at, _, factor = rest.partition(":")
    try:
        edges = [int(edge) for edge in at.split(",")]
        gamma = float(factor)
    except ValueError:
        raise _refusal(text) from None
    if edges != sorted(set(edges)) or edges[0] < 1 or not 0 < gamma < float("inf"):
        raise _refusal(text)
    return lambda epoch, steps, epochs: np.full(
        steps, np.float64(gamma) ** sum(e <= epoch for e in edges)
    )


def _refusal(text: str) -> UsageError:
    return UsageError(
        f"Got schedule {text!r}, expected constant, cosine or step:EPOCH,EPOCH,...:FACTOR.",
        hint="Give, for example, --schedule step:30,45:0.1, with rising epochs.",
    )

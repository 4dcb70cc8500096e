"""Time grid and gradient methods of the ODE layers, independent of any framework."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

GRADIENTS = ("adjoint", "direct", "checkpoint")
ROUNDING = 1e-9  # 0.3 / 0.1 is 2.9999999999999996, and 1 / (1 / 49) may not be 49


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Time grid of equal steps from `start` to `end`."""

    start: float
    end: float
    steps: int

    @classmethod
    def of_accuracy(cls, accuracy: float, start: float = 0.0, end: float = 1.0) -> Self:
        """Return a grid of max(1, ceil(|end - start| / accuracy)) steps; `accuracy` must be > 0."""
        steps = math.ceil(abs(end - start) / accuracy - ROUNDING)
        return cls(start=start, end=end, steps=max(1, steps))

    @property
    def step(self) -> float:
        """Length of a step, negative if `end` is before `start`."""
        return (self.end - self.start) / self.steps

    @property
    def times(self) -> tuple[float, ...]:
        """Start time of each step."""
        return tuple(self.start + number * self.step for number in range(self.steps))

    @property
    def reversed(self) -> Grid:
        """Grid of the same steps from `end` back to `start`."""
        return Grid(start=self.end, end=self.start, steps=self.steps)

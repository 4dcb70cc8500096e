"""How an ordinary differential equation is solved in a layer, apart from any framework."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

GRADIENTS = ("adjoint", "direct", "checkpoint")
ROUNDING = 1e-9  # 0.3 / 0.1 is 2.9999999999999996, and 1 / (1 / 49) may not be 49


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Equal steps from `start` to `end`."""

    start: float
    end: float
    steps: int

    @classmethod
    def of_accuracy(cls, accuracy: float, start: float = 0.0, end: float = 1.0) -> Self:
        """ceil(|end - start| / accuracy) steps, at least one; `accuracy` is above 0."""
        steps = math.ceil(abs(end - start) / accuracy - ROUNDING)
        return cls(start=start, end=end, steps=max(1, steps))

    @property
    def step(self) -> float:
        """The length of a step, negative where `end` is before `start`."""
        return (self.end - self.start) / self.steps

    @property
    def times(self) -> tuple[float, ...]:
        """When each step begins."""
        return tuple(self.start + number * self.step for number in range(self.steps))

    @property
    def reversed(self) -> Grid:
        """The same steps from `end` back to `start`."""
        return Grid(start=self.end, end=self.start, steps=self.steps)

"""A layer that solves an ordinary differential equation, and three ways to its gradient.

Chen et al., Neural Ordinary Differential Equations (2018): h' = f(t, h), and the layer's output is
the state at the end. Solved by Euler's method in equal steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from models.ode import Grid

Tensors = tuple[torch.Tensor, ...]


class Dynamics(nn.Module, ABC):
    """f in h' = f(t, h), written so that a solver can hold all that it reads."""

    @abstractmethod
    def coefficients(self, state: torch.Tensor) -> Tensors:
        """What `derivative` reads besides t and h: parameters, buffers, or what is made of them
        once a solve. Gradients reach the parameters through these alone."""

    @abstractmethod
    def derivative(
        self, time: float, state: torch.Tensor, coefficients: Tensors
    ) -> tuple[torch.Tensor, Tensors]:
        """f(t, h), shaped as h, and statistics seen on the way (without gradients).

        A function of its arguments and of the mode: it draws nothing at random and changes
        nothing, since a solver may evaluate it again for the gradient.
        """

    @abstractmethod
    def observe(self, statistics: Tensors) -> None:
        """Takes the mean of the statistics over one solve, once a forward in training."""


Solve = Callable[[Dynamics, Grid, torch.Tensor, Tensors], tuple[torch.Tensor, Tensors]]
"""The state at the end, and the sums of the statistics over the steps."""


@final
class OdeLayer(nn.Module):
    """h(start) -> h(end), of any shape; `gradient` is one of models.ode.GRADIENTS.

    `direct` differentiates through the solver: exact for the solver, and memory grows with the
    steps. `checkpoint` is the same number, from the states alone: each step is computed again.
    `adjoint` keeps the last state alone, and solves state, adjoint and gradients backwards with the
    same steps: its gradient is that of the equation, to the first order of the step.
    """

    def __init__(self, dynamics: Dynamics, grid: Grid, gradient: str) -> None:
        super().__init__()
        self.dynamics = dynamics
        self.grid = grid
        self.gradient = gradient

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        # An exported graph has no gradient, and should be made of the solver's own operators.
        gradient = "direct" if torch.compiler.is_exporting() else self.gradient
        coefficients = self.dynamics.coefficients(state)
        state, sums = SOLVES[gradient](self.dynamics, self.grid, state, coefficients)
        if self.dynamics.training:
            self.dynamics.observe(tuple(each / self.grid.steps for each in sums))
        return state


def _direct(
    dynamics: Dynamics, grid: Grid, state: torch.Tensor, coefficients: Tensors
) -> tuple[torch.Tensor, Tensors]:
    sums: Tensors = ()
    for time in grid.times:
        state, seen = _step(dynamics, time, grid.step, state, coefficients)
        sums = _added(sums, seen)
    return state, sums


def _checkpoint(
    dynamics: Dynamics, grid: Grid, state: torch.Tensor, coefficients: Tensors
) -> tuple[torch.Tensor, Tensors]:
    sums: Tensors = ()
    for time in grid.times:
        state, seen = checkpoint(
            _step,
            dynamics,
            time,
            grid.step,
            state,
            coefficients,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        sums = _added(sums, seen)
    return state, sums


def _adjoint(
    dynamics: Dynamics, grid: Grid, state: torch.Tensor, coefficients: Tensors
) -> tuple[torch.Tensor, Tensors]:
    state, *sums = _Adjoint.apply(dynamics, grid, state, *coefficients)
    return state, tuple(sums)


SOLVES: Mapping[str, Solve] = {"adjoint": _adjoint, "direct": _direct, "checkpoint": _checkpoint}


def _step(
    dynamics: Dynamics, time: float, step: float, state: torch.Tensor, coefficients: Tensors
) -> tuple[torch.Tensor, Tensors]:
    slope, seen = dynamics.derivative(time, state, coefficients)
    return torch.add(state, slope, alpha=step), seen


def _added(sums: Tensors, more: Tensors) -> Tensors:
    return tuple(a + b for a, b in zip(sums, more, strict=True)) if sums else more


@final
class _Adjoint(torch.autograd.Function):
    """Chen et al. (2018), algorithm 1: with a = dL/dh and g = dL/dtheta, backwards in time

    h' = f,  a' = -a df/dh,  g' = -a df/dtheta,

    all three by Euler's method. The gradient to the times is not asked for.
    """

    @staticmethod
    def forward(
        ctx: Any, dynamics: Dynamics, grid: Grid, state: torch.Tensor, *coefficients: torch.Tensor
    ) -> Tensors:
        end, sums = _direct(dynamics, grid, state, coefficients)
        ctx.dynamics, ctx.grid = dynamics, grid
        ctx.save_for_backward(end, *coefficients)
        ctx.mark_non_differentiable(*sums)
        return end, *sums

    @staticmethod
    def backward(ctx: Any, adjoint: torch.Tensor, *_: torch.Tensor) -> Any:
        state, *coefficients = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3:]
        back = ctx.grid.reversed
        gradients: Tensors = ()
        for time in back.times:
            slope, by_state, *by_known = _pulled_back(
                ctx.dynamics, time, state, coefficients, wanted, adjoint
            )
            state = torch.add(state, slope, alpha=back.step)
            adjoint = torch.sub(adjoint, by_state, alpha=back.step)
            gradients = _added(gradients, tuple(by_known))
        found = iter(gradients)
        scaled = (next(found) * -back.step if asked else None for asked in wanted)
        return None, None, adjoint, *scaled


def _pulled_back(
    dynamics: Dynamics,
    time: float,
    state: torch.Tensor,
    coefficients: Sequence[torch.Tensor],
    wanted: Sequence[bool],
    adjoint: torch.Tensor,
) -> Tensors:
    """f(t, h), then a df/dh, then a df/dc for each coefficient that is wanted.

    A function of its own, so that what one step needs is let go before the next.
    """

    def of_wanted(state: torch.Tensor, *chosen: torch.Tensor) -> torch.Tensor:
        left = iter(chosen)
        known = tuple(
            next(left) if asked else each for each, asked in zip(coefficients, wanted, strict=True)
        )
        return dynamics.derivative(time, state, known)[0]

    chosen = (each for each, asked in zip(coefficients, wanted, strict=True) if asked)
    slope, pull = torch.func.vjp(of_wanted, state, *chosen)[:2]
    return slope, *pull(adjoint)

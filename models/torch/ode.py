"""ODE layer in torch, with three gradient methods.

Chen et al., Neural Ordinary Differential Equations (2018): the layer solves h' = f(t, h) by Euler's
method in equal steps, and returns the final state.
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
    """Right-hand side f of h' = f(t, h), with all tensors that it reads passed as arguments."""

    @abstractmethod
    def coefficients(self, state: torch.Tensor) -> Tensors:
        """Return the tensors that `derivative` reads besides t and h.

        These are parameters, buffers, or values computed from them once per solve. Gradients reach
        the parameters only through these tensors.
        """

    @abstractmethod
    def derivative(
        self, time: float, state: torch.Tensor, coefficients: Tensors
    ) -> tuple[torch.Tensor, Tensors]:
        """Return f(t, h), which has the shape of h, and batch statistics (without gradients).

        The result must depend only on the arguments and on the mode, without random numbers or side
        effects, because a solver may evaluate it again for the gradient.
        """

    @abstractmethod
    def observe(self, statistics: Tensors) -> None:
        """Take the mean of the statistics over a solve; called once per forward in training."""


Solve = Callable[[Dynamics, Grid, torch.Tensor, Tensors], tuple[torch.Tensor, Tensors]]
"""Solver that returns the final state, and the sums of the statistics over the steps."""


@final
class OdeLayer(nn.Module):
    """Layer h(start) -> h(end), of any shape; `gradient` is one of models.ode.GRADIENTS.

    `direct` differentiates through the solver. The gradient is that of the discrete solution, and
    memory grows with the steps. `checkpoint` gives the same gradient, but stores only the states
    and recomputes each step. `adjoint` stores only the last state, and solves for state, adjoint
    and gradients backwards with the same steps. Its gradient is that of the equation, to first
    order in the step.
    """

    def __init__(self, dynamics: Dynamics, grid: Grid, gradient: str) -> None:
        super().__init__()
        self.dynamics = dynamics
        self.grid = grid
        self.gradient = gradient

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        # An exported graph needs no gradient, and should consist of the solver's own operators.
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
    """Adjoint method of Chen et al. (2018), algorithm 1.

    With a = dL/dh and g = dL/dtheta, it solves backwards in time

    h' = f,  a' = -a df/dh,  g' = -a df/dtheta,

    all by Euler's method. Gradients with respect to the times are not computed.
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
    """Return f(t, h), then a df/dh, then a df/dc for each wanted coefficient c.

    This is a separate function so that the memory of one step is released before the next.
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

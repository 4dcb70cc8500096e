"""Euler solvers of h' = f(t, h) in TensorFlow, with the same three gradient methods as in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from models.ode import Grid

Tensor = Any
Derivative = Callable[..., tuple[Tensor, ...]]
"""Pure function (time, state, *coefficients) -> f(t, h), followed by batch statistics, if any."""

Solve = Callable[[Derivative, Grid, Tensor, Sequence[Tensor]], tuple[Tensor, ...]]
"""Solver that returns the final state, and the sums of the statistics over the steps."""


def _direct(
    derivative: Derivative, grid: Grid, state: Tensor, coefficients: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    return _steps(derivative, grid, state, coefficients, lambda step: step)


def _checkpoint(
    derivative: Derivative, grid: Grid, state: Tensor, coefficients: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    return _steps(derivative, grid, state, coefficients, tf.recompute_grad)


def _steps(
    derivative: Derivative,
    grid: Grid,
    state: Tensor,
    coefficients: Sequence[Tensor],
    wrap: Callable[[Derivative], Derivative],
) -> tuple[Tensor, ...]:
    sums: list[Tensor] = []
    for time in grid.times:

        def step(state: Tensor, *known: Tensor, time: float = time) -> tuple[Tensor, ...]:
            slope, *seen = derivative(time, state, *known)
            return state + grid.step * slope, *seen

        state, *seen = wrap(step)(state, *coefficients)
        sums = _added(sums, seen)
    return state, *sums


def _adjoint(
    derivative: Derivative, grid: Grid, state: Tensor, coefficients: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
    def solve(state: Tensor, *known: Tensor) -> tuple[tuple[Tensor, ...], Callable[..., Any]]:
        end, *sums = _direct(derivative, grid, state, known)

        def back(adjoint: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
            here, back = end, grid.reversed
            gradients: list[Tensor] = []
            for time in back.times:
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch([here, *known])
                    slope = derivative(time, here, *known)[0]
                by_state, *by_known = tape.gradient(
                    slope, [here, *known], adjoint, unconnected_gradients="zero"
                )
                here = here + back.step * slope
                adjoint = adjoint - back.step * by_state
                gradients = _added(gradients, by_known)
            return adjoint, *(-back.step * each for each in gradients)

        return (end, *sums), back

    return tuple(solve(state, *coefficients))


SOLVES: Mapping[str, Solve] = {"adjoint": _adjoint, "direct": _direct, "checkpoint": _checkpoint}


def _added(sums: list[Tensor], more: Sequence[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(sums, more, strict=True)] if sums else list(more)

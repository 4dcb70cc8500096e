"""ODE layers, against torchdiffeq and against solutions that are known."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torchdiffeq import odeint, odeint_adjoint

from models.ode import GRADIENTS, Grid
from models.torch.ode import Dynamics, OdeLayer, Tensors

STATE = 3


class Wave(Dynamics):
    """f(t, h) = tanh(W h + t b): smooth, and not linear."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(torch.randn(STATE, STATE, generator=generator).double())
        self.drift = nn.Parameter(torch.randn(STATE, generator=generator).double())
        self.fixed = nn.Parameter(torch.zeros(1).double(), requires_grad=False)
        self.seen: list[Tensors] = []

    def coefficients(self, state: torch.Tensor) -> Tensors:
        return self.matrix, self.fixed, self.drift

    def derivative(
        self, time: float, state: torch.Tensor, coefficients: Tensors
    ) -> tuple[torch.Tensor, Tensors]:
        matrix, _, drift = coefficients
        return torch.tanh(state @ matrix + time * drift), (torch.tensor(time),)

    def observe(self, statistics: Tensors) -> None:
        self.seen.append(statistics)


class AsTorchdiffeq(nn.Module):
    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__()
        self.dynamics = dynamics

    def forward(self, time: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        known = self.dynamics.coefficients(state)
        return self.dynamics.derivative(float(time.detach()), state, known)[0]


def start() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, STATE, generator=generator).double().requires_grad_()


def gradients(dynamics: Dynamics, state: torch.Tensor, end: torch.Tensor) -> list[torch.Tensor]:
    """Of a loss that weighs every value of the end state differently."""
    weights = torch.linspace(-1, 2, end.numel(), dtype=torch.float64).reshape(end.shape)
    sought = [state, *(p for p in dynamics.parameters() if p.requires_grad)]
    return list(torch.autograd.grad((weights * end.square()).sum(), sought))


def solved(gradient: str, grid: Grid) -> tuple[torch.Tensor, list[torch.Tensor]]:
    layer, state = OdeLayer(Wave(), grid, gradient), start()
    end = layer(state)
    return end, gradients(layer.dynamics, state, end)


@pytest.mark.parametrize(
    ("accuracy", "span", "steps"),
    [
        (0.25, (0, 1), 4),
        (0.3, (0, 1), 4),
        (1.0, (0, 1), 1),
        (2.0, (0, 1), 1),
        (0.1, (0, 1), 10),
        (0.1, (0, 0.3), 3),
        (1 / 49, (0, 1), 49),
        (0.25, (1, 0), 4),
        (0.4, (-1, 1), 5),
    ],
)
def test_steps_are_the_span_over_the_accuracy_rounded_up(
    accuracy: float, span: tuple[float, float], steps: int
):
    grid = Grid.of_accuracy(accuracy, *span)
    assert grid.steps == steps
    assert grid.times[0] == span[0]
    assert grid.times[-1] + grid.step == pytest.approx(span[1])
    assert grid.reversed.times[0] == span[1]


@pytest.mark.parametrize("accuracy", [0.25, 0.3, 1.0, 2.0, 1 / 16])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_outputs_and_gradients_are_torchdiffeq_s(gradient: str, accuracy: float):
    grid = Grid.of_accuracy(accuracy)
    end, found = solved(gradient, grid)
    dynamics, state = Wave(), start()
    solve = odeint_adjoint if gradient == "adjoint" else odeint
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    more = {"adjoint_params": (dynamics.matrix, dynamics.drift)} if gradient == "adjoint" else {}
    theirs = solve(
        AsTorchdiffeq(dynamics),
        state,
        times,
        method="euler",
        options={"step_size": grid.step},
        **more,
    )[-1]
    torch.testing.assert_close(end, theirs, rtol=1e-12, atol=1e-12)
    expected = gradients(dynamics, state, theirs)
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("gradient", ["direct", "checkpoint"])
def test_exact_gradients_pass_the_check_by_differences(gradient: str):
    layer = OdeLayer(Wave(), Grid(start=0, end=1, steps=3), gradient)
    assert torch.autograd.gradcheck(layer, (start(),))


def test_checkpoint_is_direct_bit_for_bit():
    grid = Grid(start=0, end=1, steps=5)
    for one, other in zip(solved("direct", grid)[1], solved("checkpoint", grid)[1], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("gradient", ["adjoint", "direct"])
def test_gradient_converges_to_the_equation_s_in_the_first_order(gradient: str):
    dynamics, state = Wave(), start()
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    options = {"step_size": 1 / 100}  # of the fourth order: nine digits
    end = odeint(AsTorchdiffeq(dynamics), state, times, method="rk4", options=options)[-1]
    exact = gradients(dynamics, state, end)

    def error(steps: int) -> float:
        found = solved(gradient, Grid(start=0, end=1, steps=steps))[1]
        return math.sqrt(
            sum(float((a - b).square().sum()) for a, b in zip(found, exact, strict=True))
        )

    errors = [error(steps) for steps in (50, 100, 200, 400)]
    ratios = [coarse / fine for coarse, fine in itertools.pairwise(errors)]
    assert all(1.85 < ratio < 2.2 for ratio in ratios), ratios


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_known_solution_is_reached_in_the_first_order(gradient: str):
    """h' = a h: h(1) = e^a h(0), dh(1)/dh(0) = e^a, dh(1)/da = e^a h(0)."""

    class Growth(Wave):
        def coefficients(self, state: torch.Tensor) -> Tensors:
            return (self.matrix,)

        def derivative(
            self, time: float, state: torch.Tensor, coefficients: Tensors
        ) -> tuple[torch.Tensor, Tensors]:
            return coefficients[0][0, 0] * state, ()

    errors = []
    for steps in (64, 128):
        dynamics = Growth()
        a = float(dynamics.matrix.data[0, 0])
        state = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
        layer = OdeLayer(dynamics.eval(), Grid(start=0, end=1, steps=steps), gradient)
        end = layer(state)
        by_state, by_a = torch.autograd.grad(end, (state, dynamics.matrix))
        got = (float(end.detach()), float(by_state), float(by_a[0, 0]))
        errors.append(
            [
                x - y
                for x, y in zip(got, (2 * math.exp(a), math.exp(a), 2 * math.exp(a)), strict=True)
            ]
        )
    for coarse, fine in zip(*errors, strict=True):
        assert coarse / fine == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_statistics_are_observed_once_a_forward_as_their_mean(gradient: str):
    dynamics = Wave()
    layer, state = OdeLayer(dynamics, Grid(start=0, end=1, steps=4), gradient), start()
    layer(state).sum().backward()
    ((mean,),) = dynamics.seen
    assert float(mean) == pytest.approx((0 + 0.25 + 0.5 + 0.75) / 4)
    layer.eval()(state).sum().backward()
    assert len(dynamics.seen) == 1


def test_what_needs_no_gradient_gets_none():
    dynamics = Wave()
    layer = OdeLayer(dynamics, Grid(start=0, end=1, steps=2), "adjoint")
    layer(start().detach()).sum().backward()
    assert dynamics.fixed.grad is None
    assert dynamics.matrix.grad is not None


def test_adjoint_keeps_no_state_but_the_last():
    """Bytes that autograd holds between forward and backward, at 2 and at 64 steps."""

    def held(gradient: str, steps: int) -> int:
        layer, state = OdeLayer(Wave(), Grid(start=0, end=1, steps=steps), gradient), start()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.nbytes) or tensor, lambda tensor: tensor
        ):
            layer(state)
        return sum(sizes)

    assert held("adjoint", 64) == held("adjoint", 2)
    assert held("direct", 64) > 20 * held("direct", 2)

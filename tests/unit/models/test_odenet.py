"""The trunk with residual and ODE stages: sizes, batch norms inside the dynamics, two forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models import FAMILIES, build, builder
from models.ode import GRADIENTS, Grid
from models.torch.ode import OdeLayer
from models.torch.odenet import ConvDynamics
from toolkit.core.errors import UsageError

CHANNELS = 3


@pytest.mark.parametrize(
    ("family", "settings", "size"),
    [
        ("resnet", {"blocks": 1}, 292_688),
        ("resnet", {"blocks": 2}, 478_944),
        ("resnet", {"blocks": 3}, 665_200),
        ("odenet", {"accuracy": 0.5}, 296_144),
        ("odenet", {"accuracy": 0.1}, 296_144),
        ("residual-odenet", {"blocks": 1}, 294_992),
        ("residual-odenet", {"blocks": 2}, 332_504),
        ("residual-odenet", {"blocks": 3}, 370_016),
    ],
)
def test_state_dict_has_the_bytes_of_the_study(family: str, settings: dict, size: int):
    spec = FAMILIES.create(family).spec("torch", settings=settings)
    assert builder(spec, "torch").size(spec).state_dict_bytes == size
    built = build(spec, "torch").state_dict().values()
    assert sum(tensor.nbytes for tensor in built) == size


@pytest.mark.parametrize(
    "settings", [{"accuracy": 0}, {"accuracy": -1}, {"gradient": "exact"}], ids=str
)
def test_options_that_cannot_be_meant_are_refused(settings: dict):
    with pytest.raises(UsageError, match=next(iter(settings))):
        FAMILIES.create("odenet").spec("torch", settings=settings)


def test_settings_reach_both_stages():
    spec = FAMILIES.create("odenet").spec("torch", settings={"accuracy": 0.3, "gradient": "direct"})
    module = build(spec, "torch")
    assert [stage.grid.steps for stage in (module.stage1, module.stage2)] == [4, 4]
    assert module.stage1.gradient == "direct"


def dynamics() -> ConvDynamics:
    """With a weight for the time that matters, and running statistics of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        made = ConvDynamics(CHANNELS)
        for tensor in made.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 0.9)
        nn.init.normal_(made.conv.weight)
    return made.double()


def images() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((4, CHANNELS, 5, 5)))


def plain(of: ConvDynamics, state: torch.Tensor, steps: int, seen: list) -> torch.Tensor:
    """The layer as the study writes it: concatenation, convolution, batch norm, by hand."""
    for number in range(steps):
        slope = state
        for _ in range(2):
            clock = torch.full_like(slope[:, :1], number / steps)
            slope = of.conv(torch.cat([slope, clock], 1))
            if of.training:
                seen.append((slope.mean((0, 2, 3)), slope.var((0, 2, 3))))
                slope = F.batch_norm(slope, None, None, of.bn.weight, of.bn.bias, True)
            else:
                slope = of.bn(slope)
            slope = F.relu(slope)
        state = state + slope / steps
    return state


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_layer_is_what_the_study_writes(training: bool):
    """Forward, gradients of all parameters, and of the input."""
    found = []
    for by_hand in (False, True):
        used, state = dynamics().train(training), images().requires_grad_()
        layer = OdeLayer(used, Grid(start=0, end=1, steps=3), "direct")
        end = plain(used, state, 3, []) if by_hand else layer(state)
        sought = (state, *used.parameters())
        found.append([end, *torch.autograd.grad(end.square().sum() + end.sum(), sought)])
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_running_statistics_move_once_by_the_mean_over_all_applications(gradient: str):
    layer = OdeLayer(dynamics(), Grid(start=0, end=1, steps=3), gradient)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    plain(dynamics(), images(), 3, seen)
    bn = layer.dynamics.bn
    before = (bn.running_mean.clone(), bn.running_var.clone())
    layer(images().requires_grad_()).square().sum().backward()
    assert int(bn.num_batches_tracked) == 1
    assert len(seen) == 6
    for now, old, each in zip(
        (bn.running_mean, bn.running_var), before, zip(*seen, strict=True), strict=True
    ):
        torch.testing.assert_close(now, 0.9 * old + 0.1 * torch.stack(each).mean(0))


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_evaluation_moves_no_statistics(gradient: str):
    layer = OdeLayer(dynamics(), Grid(start=0, end=1, steps=3), gradient).eval()
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    layer(images().requires_grad_()).square().sum().backward()
    assert all(torch.equal(now, before[name]) for name, now in layer.state_dict().items())
    assert layer.dynamics.conv.weight.grad is not None


def test_adjoint_nears_the_exact_gradient_as_steps_double():
    def error(steps: int) -> float:
        grads = []
        for gradient in ("adjoint", "direct"):
            layer = OdeLayer(dynamics(), Grid(start=0, end=1, steps=steps), gradient)
            layer(images()).square().sum().backward()
            grads.append(layer.dynamics.conv.weight.grad)
        return float((grads[0] - grads[1]).norm() / grads[1].norm())

    assert 1.6 < error(32) / error(64) < 2.5


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_step_lowers_the_loss(gradient: str):
    spec = FAMILIES.create("residual-odenet").spec("torch", settings={"gradient": gradient})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build(spec, "torch")
        inputs, targets = torch.randn(8, 3, 32, 32), torch.arange(8)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02)
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(module(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]

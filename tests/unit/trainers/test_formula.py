"""The formula of each optimizer against torch.optim, and against float64 written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toolkit.trainers import formula
from toolkit.trainers.recipe import Recipe

STEPS = 10
RATES = 0.05 * np.linspace(1.0, 0.1, STEPS)  # rates that change tell where momentum has them
CASES = [
    pytest.param(optimizer, momentum, decay, id=f"{optimizer}-{momentum}-{decay}")
    for optimizer, momentum in [
        ("sgd", 0.0), ("sgd", 0.9), ("adam", 0.0), ("rmsprop", 0.0), ("rmsprop", 0.9),
    ]
    for decay in (0.0, 0.1)
]  # fmt: skip


def gradients() -> np.ndarray:
    """Large and small ones: where eps stands matters for the small."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(STEPS, 6)) * np.array([1, 1, 1e-3, 1e-6, 1e-8, 0])


def after(optimizer: str, momentum: float, decay: float, dtype: type) -> np.ndarray:
    """The parameters after STEPS steps by the formula."""
    recipe = Recipe(
        epochs=1, seed=0, batch=1, learning_rate=0.05,
        optimizer=optimizer, momentum=momentum, weight_decay=decay,
    )  # fmt: skip
    parameter = np.linspace(-1, 1, 6).astype(dtype)
    kept = tuple(np.zeros(6, dtype) for _ in formula.slots(recipe))
    # In two parts, as epochs are.
    scales = [*formula.scales(recipe, 0, RATES[:4]), *formula.scales(recipe, 4, RATES[4:])]
    for gradient, scale in zip(gradients().astype(dtype), scales, strict=True):
        parameter, kept = formula.update(recipe, parameter, gradient, kept, scale, np.sqrt)
    return parameter


@pytest.mark.parametrize(("optimizer", "momentum", "decay"), CASES)
def test_ten_steps_are_those_of_torch(optimizer: str, momentum: float, decay: float):
    parameter = torch.nn.Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64))
    own = {"momentum": momentum} if optimizer != "adam" else {}
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}
    theirs = kind[optimizer]([parameter], lr=0.05, weight_decay=decay, **own)
    for gradient, rate in zip(gradients(), RATES, strict=True):
        theirs.param_groups[0]["lr"] = rate
        parameter.grad = torch.from_numpy(gradient.copy())
        theirs.step()
    found = after(optimizer, momentum, decay, np.float64)
    # The scales are float32: half of 2^-23 of each step.
    np.testing.assert_allclose(found, parameter.detach().numpy(), rtol=0, atol=1e-7)


@pytest.mark.parametrize(("optimizer", "momentum", "decay"), CASES)
def test_float32_is_float64_but_for_rounding(optimizer: str, momentum: float, decay: float):
    found = after(optimizer, momentum, decay, np.float32)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, after(optimizer, momentum, decay, np.float64), atol=2e-6)

"""ODE layers in loops that compile, and in TensorFlow: the losses of the plain loop in torch."""

from __future__ import annotations

import numpy as np
import pytest

from models.ode import GRADIENTS
from tests.unit.trainers.jobs import images, job, losses, opened
from toolkit.trainers.base import Job

# Batch norms over four rows, in each of four applications: what one sum rounds differently is
# divided by a small deviation.
TOLERANCE = 1e-4


def training(framework: str, mode: str, gradient: str) -> Job:
    settings = {"accuracy": 0.5, "gradient": gradient}
    return job(
        framework, mode, images(12), model="residual-odenet", settings=settings, epochs=1,
        momentum=0.9,
    )  # fmt: skip


def ends(job: Job) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    with opened(job) as session:
        return losses(session, job), session.weights()


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize(("framework", "mode"), [("torch", "compile"), ("tensorflow", "function")])
def test_losses_and_statistics_are_those_of_the_plain_loop(
    framework: str, mode: str, gradient: str
) -> None:
    expected, theirs = ends(training("torch", "eager", gradient))
    found, ours = ends(training(framework, mode, gradient))
    assert expected.shape == (3,)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)
    for name in theirs:
        if name.endswith(("running_mean", "running_var")):
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-3, err_msg=name)


def test_the_gradients_are_told_apart() -> None:
    """The tolerance is worth something: adjoint and direct differ by far more."""
    first, other = (ends(training("torch", "eager", g))[0] for g in ("adjoint", "direct"))
    assert abs(first - other).max() / abs(other).max() > 5 * TOLERANCE

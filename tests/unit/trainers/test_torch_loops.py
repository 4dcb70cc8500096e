"""The loops of torch are one mathematics, on the batches that the epoch fixes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from toolkit.core.errors import UnavailableError, UsageError
from toolkit.core.specs import ModelSpec, Signature, Task, TaskKind, TensorSpec
from toolkit.data.base import Split
from toolkit.trainers.base import Job, Settings, TrainingSession
from toolkit.trainers.recipe import Recipe
from toolkit.trainers.run import epoch_of
from toolkit.trainers.torch_loops import TorchTrainer

ROWS = 38
TASK = Task(kind=TaskKind.CLASSIFICATION, input_shape=(1, 4, 4), outputs=3)
SPEC = ModelSpec(
    name="own",
    family="own",
    framework="torch",
    signature=Signature(
        inputs=(TensorSpec(name="input", dtype="float32", shape=("batch", 1, 4, 4)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 3)),),
    ),
    task=TASK,
)


def convolutional() -> nn.Module:
    """No bias before the normalisation: its gradient is rounding alone, which adam makes large."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )


def with_dropout() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Dropout(0.5), nn.Linear(8, 3))


def recipe(**given: object) -> Recipe:
    usual = {"epochs": 2, "seed": 5, "batch": 8, "learning_rate": 0.01, "schedule": "cosine"}
    return Recipe(**{**usual, **given})


def rows() -> Split:
    rng = np.random.default_rng(0)
    return Split(
        inputs=rng.standard_normal((ROWS, 1, 4, 4)).astype(np.float32),
        targets=rng.integers(0, 3, ROWS),
    )


def open_session(
    mode: str, plan: Recipe, make: Callable[[], nn.Module] = convolutional, **settings: object
) -> TrainingSession:
    trainer = TorchTrainer()
    return trainer.open(
        Job(
            spec=SPEC,
            mode=mode,
            recipe=plan,
            train=rows(),
            weights=trainer.own_weights(make, 0),
            settings=Settings(**{"threads": 1, **settings}),
            module=make,
        )
    )


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs of whole steps, run by torch's own operators."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: torch.no_grad()(function))


OPTIMIZERS = [
    recipe(optimizer="sgd"),
    recipe(optimizer="sgd", momentum=0.9, weight_decay=0.01),
    recipe(optimizer="adam", weight_decay=0.01),
    recipe(optimizer="rmsprop"),
    recipe(optimizer="rmsprop", momentum=0.9, weight_decay=0.01),
    recipe(optimizer="adam", augmentation=("crop", "flip")),
]


def after_an_epoch(mode: str, plan: Recipe) -> tuple[np.ndarray, float, dict[str, np.ndarray]]:
    with open_session(mode, plan) as session:
        runs = [session.run_epoch(epoch_of(plan, number, ROWS)) for number in (0, 1)]
        return np.concatenate([r.losses for r in runs]), runs[1].metric, session.weights()


def assert_alike(mode: str, plan: Recipe) -> None:
    losses, metric, weights = after_an_epoch("eager", plan)
    found_losses, found_metric, found = after_an_epoch(mode, plan)
    np.testing.assert_allclose(found_losses, losses, rtol=1e-5)
    assert found_metric == pytest.approx(metric)
    assert found.keys() == weights.keys()
    assert weights["1.num_batches_tracked"] == 10
    for name, array in weights.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("plan", OPTIMIZERS, ids=lambda p: f"{p.optimizer}-{p.momentum:g}")
@pytest.mark.parametrize("mode", ["compile", "fused"])
@pytest.mark.usefixtures("uncompiled")
def test_whole_steps_are_those_of_torch_optim(mode: str, plan: Recipe) -> None:
    assert_alike(mode, plan)


def test_compiled_steps_are_those_of_torch_optim_with_batch_norm() -> None:
    assert_alike("fused", recipe(optimizer="adam", weight_decay=0.01))


@pytest.mark.parametrize("mode", ["eager", "fused"])
@pytest.mark.usefixtures("uncompiled")
def test_dropout_is_drawn_from_the_epoch_s_seed(mode: str) -> None:
    plan = recipe(learning_rate=1e-9)  # what differs from epoch to epoch is the draw alone
    with open_session(mode, plan, with_dropout) as session:
        first = session.run_epoch(epoch_of(plan, 0, ROWS)).losses
        torch.rand(7)
        again = session.run_epoch(epoch_of(plan, 0, ROWS)).losses
        other = session.run_epoch(epoch_of(plan, 1, ROWS)).losses
    np.testing.assert_allclose(first, again, rtol=1e-6)
    assert not np.allclose(np.sort(first), np.sort(other), rtol=1e-3)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
# Workers are forked, which a process that other tests have loaded TensorFlow into may not survive.
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.alone)])
def test_the_loader_gives_the_epoch_s_batches_bit_for_bit(workers: int) -> None:
    seen: list[np.ndarray] = []

    class Recording(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                seen.append(x.numpy().copy())
            return self.fc(x.flatten(1))

    plan = recipe(augmentation=("crop", "flip"))
    with open_session("eager", plan, Recording, loader_workers=workers) as session:
        for number in (0, 1):
            seen.clear()
            epoch = epoch_of(plan, number, ROWS)
            session.run_epoch(epoch)
            expected = [batch.inputs for batch in epoch.batches(rows())]
            assert [len(batch) for batch in seen] == [8, 8, 8, 8, 6]
            for one, other in zip(seen, expected, strict=True):
                np.testing.assert_array_equal(one, other)


def test_threads_and_kernels_are_as_asked_and_given_back() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with open_session("eager", recipe(), threads=3, deterministic=True) as session:
        found = session.provenance()
    assert (found["threads"], found["deterministic"]) == (3, True)
    assert before == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:x", "", "cpu0"])
def test_a_device_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected cpu, cuda"):
        open_session("eager", recipe(), device=name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_here_is_said() -> None:
    with pytest.raises(UnavailableError, match=r"torch .* sees 0 such devices"):
        open_session("eager", recipe(), device="cuda")


def test_a_module_that_does_not_fit_the_rows_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot take rows"):
        open_session("eager", recipe(), lambda: nn.Linear(5, 3))
    with pytest.raises(UsageError, match=r"outputs of shape \[2, 7\]"):
        open_session("eager", recipe(), lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 7)))
    with pytest.raises(UsageError, match=r"expected a torch\.nn\.Module"):
        TorchTrainer().own_weights(lambda: 3, 0)


def test_a_model_that_depends_on_its_values_cannot_be_one_graph() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.fc(x.flatten(1))
            return out if out.sum() > 0 else -out

    with (
        open_session("compile", recipe(), Branching) as session,
        pytest.raises(UsageError, match="cannot be compiled as a whole"),
    ):
        session.run_epoch(epoch_of(recipe(), 0, ROWS))

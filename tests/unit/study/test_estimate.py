"""How long what is left takes."""

from __future__ import annotations

from typing import Any

from toolkit.study.estimate import estimate
from toolkit.study.matrix import Cell
from toolkit.study.store import Outcome, State


def train(**values: Any) -> Cell:
    return Cell(step="train", values={"model": "mlp", "trainer": "torch:eager", **values})


def took(cell: Cell, seconds: float, state: State = State.DONE) -> Outcome:
    return Outcome(
        id=cell.id, step=cell.step, dimensions=cell.dimensions, parents=(), state=state,
        started="2026-01-01T00:00:00+00:00", seconds=seconds, machine="m",
    )  # fmt: skip


def test_training_is_unknown_until_one_of_the_model_was_done() -> None:
    left = [train(seed=1, epochs=10)]
    assert estimate(left, []).unknown == 1
    assert estimate(left, [took(train(model="vgg16"), 90.0)]).unknown == 1
    found = estimate(left, [took(train(seed=0, epochs=2), 6.0)])
    assert (found.unknown, found.seconds) == (0, 30.0)  # by the epoch


def test_the_same_trainer_says_more_than_another() -> None:
    left = [train(trainer="jax:jit")]
    other = took(train(), 8.0)
    assert estimate(left, [other]).seconds == 8.0
    same = [took(train(trainer="jax:jit", seed=seed), 2.0 + seed) for seed in (0, 1, 5)]
    assert estimate(left, [other, *same]).seconds == 3.0  # their median


def test_what_failed_at_once_says_nothing() -> None:
    left = [train(seed=1)]
    assert estimate(left, [took(train(), 0.1, State.FAILED)]).unknown == 1


def test_a_measurement_takes_what_its_limits_come_to() -> None:
    parent = train()
    one = Cell(
        step="bench", values={"runtimes": ["torch"], "max_seconds": 3, "processes": 2},
        parents=(parent,),
    )  # fmt: skip
    two = Cell(step="bench", values={**one.values, "scopes": ["forward"]}, parents=(parent,))
    assert estimate([one], []).seconds - estimate([two], []).seconds == 3
    assert estimate([one, two], []).unknown == 0
    assert estimate([one], [took(two, 50.0)]).seconds == 50.0

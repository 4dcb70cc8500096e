"""What every model family must do in every framework that it has, asked of all alike.

A new family, or a new framework of one, is picked up by itself. A framework that cannot be had on
the machine of the tests is skipped with its reason, unless REQUIRED names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from models import FAMILIES, builder
from models.base import Builder
from models.initial import SCHEMES, fresh_weights
from tests.conformance.twins import EVALUATE, TRAIN
from toolkit.core.errors import IntegrityError, UnavailableError, UsageError
from toolkit.core.options import Option, Value
from toolkit.core.specs import Task, TaskKind
from toolkit.trainers.recipe import Recipe

REQUIRED = {"torch", "tensorflow", "jax"}
EVERYWHERE = {"torch", "tensorflow"}  # each family is written in these
TOLERANCE = 1e-5  # the largest output is 1
TRAINING_TOLERANCE = 1e-4  # the statistics of few values are taken in float32 in any order

ELSEWHERE = {"tripy": "Tripy has a process of its own: tests/with_tripy"}

EXPECTED_FAILURES: dict[tuple[str, str, str], str] = {}
"""(family, framework, check): why."""


def other_values(option: Option) -> list[Value]:
    """Values of an option besides its default."""
    if option.choices is not None:
        return [choice for choice in option.choices if choice != option.default]
    if isinstance(option.default, bool):
        return [not option.default]
    if isinstance(option.default, int):
        return [option.default + 1]
    return [option.default / 2] if isinstance(option.default, float) else []


def variants() -> Iterator[Any]:
    """Each family in each of its other frameworks, with each option by itself at another value."""
    for name in FAMILIES.names():
        family = FAMILIES.create(name)
        for framework in family.builders.names()[1:]:
            for key, option in family.options.items():
                for value in other_values(option):
                    made = (name, framework, {key: value})
                    yield pytest.param(made, id=f"{name}-{framework}-{key}={value}")


def homes() -> Iterator[Any]:
    """Each family in each of its frameworks, with all options at their defaults."""
    for name in FAMILIES.names():
        for framework in FAMILIES.create(name).builders.names():
            yield pytest.param((name, framework, {}), id=f"{name}-{framework}")


class Case:
    """A model in a framework, the same in torch, and weights that every tensor's place shows in."""

    def __init__(self, name: str, framework: str, settings: dict[str, Value]) -> None:
        self.family = FAMILIES.create(name)
        self.framework = framework
        self.spec = self.family.spec("torch", settings=settings)
        self.builder: Builder = builder(self.spec, framework)
        self.torch_builder: Builder = builder(self.spec, "torch")
        self.module = self.builder.build(self.spec)
        self.torch = self.torch_builder.build(self.spec)
        self.given = self._weights()

    def rows(self, batch: int = 2) -> np.ndarray:
        assert self.spec.task is not None
        rng = np.random.default_rng(batch)
        return rng.standard_normal((batch, *self.spec.task.input_shape)).astype(np.float32)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return EVALUATE[self.framework](self.module, x)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return EVALUATE["torch"](self.torch, x)

    def weights(self) -> dict[str, np.ndarray]:
        return self.builder.weights(self.module)

    def restore(self) -> None:
        """Both modules with `given`."""
        self.builder.restore(self.module, self.given)
        self.torch_builder.restore(self.torch, self.given)

    def _weights(self) -> dict[str, np.ndarray]:
        """Kernels by He et al., norms that all do something, a last layer that gives 1 at most.

        So an absolute tolerance means what it says.
        """
        shapes = {n: a.shape for n, a in self.torch_builder.weights(self.torch).items()}
        found = fresh_weights(shapes, 0, "he-normal")
        rng = np.random.default_rng(0)
        for name, array in found.items():
            if array.ndim == 1:
                found[name] = array + rng.uniform(-0.3, 0.3, array.shape).astype(np.float32)
        self.torch_builder.restore(self.torch, found)
        largest = np.abs(self.reference(self.rows(3))).max()
        for name in list(found)[-2:]:
            found[name] /= largest
        return found


def made(params: tuple[str, str, dict[str, Value]]) -> Case:
    if reason := ELSEWHERE.get(params[1]):
        pytest.skip(reason)
    try:
        return Case(*params)
    except UnavailableError as error:
        if params[1] in REQUIRED:
            raise
        pytest.skip(error.problem)


@pytest.fixture(scope="module", params=list(homes()))
def case(request: pytest.FixtureRequest) -> Case:
    return made(request.param)


@pytest.fixture(autouse=True)
def expected_failure(request: pytest.FixtureRequest) -> None:
    if "case" in request.fixturenames:
        found = request.getfixturevalue("case")
        key = (found.family.name, found.framework, request.function.__name__)
        if reason := EXPECTED_FAILURES.get(key):
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.mark.parametrize("name", FAMILIES.names())
def test_every_family_is_what_it_says(name: str) -> None:
    family = FAMILIES.create(name)
    assert family.name == name
    assert set(family.builders.names()) >= EVERYWHERE
    assert family.builders.names()[0] == "torch"  # toolkit models counts there
    assert family.initialisation in SCHEMES
    Recipe(epochs=1, seed=0, **family.recipe)
    for key, option in family.options.items():
        assert key == key.lower()
        assert option.help.endswith(".")
        assert option.parse(key, option.default) == option.default


@pytest.mark.parametrize("name", FAMILIES.names())
def test_a_task_that_does_not_fit_is_refused(name: str) -> None:
    family = FAMILIES.create(name)
    odd = Task(kind=TaskKind.CLASSIFICATION, input_shape=(5, 7, 11), outputs=10)
    with pytest.raises(UsageError, match=r"5x7x11 .*expected"):
        family.spec("torch", task=odd)


def check_outputs(case: Case) -> None:
    """Equal ones from torch's weights in the twin, and from the twin's weights in torch."""
    case.restore()
    x = case.rows(3)
    expected = case.reference(x)
    found = case.evaluate(x)
    assert np.abs(expected).max() == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    case.torch_builder.restore(case.torch, {n: np.ones_like(a) for n, a in case.given.items()})
    case.torch_builder.restore(case.torch, case.weights())
    np.testing.assert_allclose(found, case.reference(x), rtol=0, atol=TOLERANCE)


def test_twins_give_the_same_outputs(case: Case) -> None:
    check_outputs(case)


@pytest.mark.parametrize("params", list(variants()))
def test_twins_give_the_same_outputs_with_every_option(
    params: tuple[str, str, dict[str, Value]],
) -> None:
    found = made(params)
    check_outputs(found)
    assert found.builder.size(found.spec) == found.torch_builder.size(found.spec)


def test_size_is_that_of_torch(case: Case) -> None:
    size = case.builder.size(case.spec)
    assert size == case.torch_builder.size(case.spec)
    assert size.state_dict_bytes == sum(array.nbytes for array in case.given.values())


def test_weights_come_back_bit_for_bit(case: Case) -> None:
    case.restore()
    same(case.weights(), case.given)


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("batch", [1, 5])
def test_outputs_are_those_of_the_signature(case: Case, batch: int) -> None:
    x = case.rows(batch)
    dims = case.spec.signature.check({"input": x})
    found = case.evaluate(x)
    (output,) = case.spec.signature.outputs
    assert found.shape == output.resolve(dims)
    assert found.dtype == output.dtype


def test_evaluation_leaves_the_weights_alone(case: Case) -> None:
    case.restore()
    first = case.evaluate(case.rows())
    np.testing.assert_array_equal(case.evaluate(case.rows()), first)
    same(case.weights(), case.given)


def test_training_mode_is_torch_s(case: Case) -> None:
    """Running statistics move alike; so do outputs, but for dropout, which draws anew."""
    case.restore()
    x = case.rows(4)
    found, expected = TRAIN[case.framework](case.module, x), TRAIN["torch"](case.torch, x)
    moved = case.weights()
    for name, array in case.torch_builder.weights(case.torch).items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(
                moved[name], array, rtol=TRAINING_TOLERANCE, atol=TRAINING_TOLERANCE, err_msg=name
            )
    if "dropout" in case.family.options:
        assert not np.array_equal(TRAIN[case.framework](case.module, x), found)
    else:
        np.testing.assert_allclose(found, expected, rtol=0, atol=TRAINING_TOLERANCE)


def test_weights_are_copies(case: Case) -> None:
    given = {name: array.copy() for name, array in case.given.items()}
    case.builder.restore(case.module, given)
    for array in (*given.values(), *case.weights().values()):
        array[...] = 7
    same(case.weights(), case.given)


def test_weights_that_do_not_fit_are_named_and_change_nothing(case: Case) -> None:
    case.restore()
    first, *_, last = case.given
    other = {name: array + 1 for name, array in case.given.items()}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({n: a for n, a in other.items() if n != last}, last),
        ({**other, "other.weight": np.zeros((1, 1), np.float32)}, "other.weight"),
        ({**other, last: np.zeros((*other[last].shape, 1), np.float32)}, last),
        ({**other, first: other[first].astype(np.float64)}, first),
    ]
    for weights, named in wrong:
        with pytest.raises(IntegrityError, match=named):
            case.builder.restore(case.module, weights)
    same(case.weights(), case.given)


def test_fresh_weights_fit_and_give_finite_outputs(case: Case) -> None:
    shapes = {name: array.shape for name, array in case.weights().items()}
    fresh = fresh_weights(shapes, 0, case.family.initialisation)
    case.builder.restore(case.module, fresh)
    assert np.isfinite(case.evaluate(case.rows())).all()

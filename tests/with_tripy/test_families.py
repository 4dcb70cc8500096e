"""Every family in Tripy is the one in torch; what is not, is found; TensorRT takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nvtripy as tp
import pytest

from models import FAMILIES
from models.he_resnet import BLOCKS
from models.ode import Grid
from models.tripy import he_resnet, layers, lenet, odenet
from tests.doubles.program_in_rtx import engine_of
from tests.with_tripy.twins import BATCHES, Twins
from toolkit.core.errors import IntegrityError

TOLERANCE = 3  # of the rounding errors of torch in float32


class Case:
    def __init__(self, family: str) -> None:
        self.twins = Twins(family)
        self.module = self.twins.module()
        self.executable = self.twins.executable(self.module)


LEFT_OUT = {"resnet32": "has the layers of resnet20, and takes longer"}


@pytest.fixture(scope="module", params=sorted(set(FAMILIES.names()) - set(LEFT_OUT)))
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


@pytest.mark.parametrize("batch", BATCHES)
def test_its_outputs_are_torch_s(case: Case, batch: int) -> None:
    assert case.twins.error(case.executable, batch) < TOLERANCE


def test_its_weights_come_back_bit_for_bit(case: Case) -> None:
    found, expected = case.twins.builder.weights(case.module), case.twins.weights
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        if not name.endswith("num_batches_tracked"):
            assert found[name].tobytes() == array.tobytes(), name


def test_its_size_is_torch_s(case: Case) -> None:
    twins = case.twins
    assert twins.builder.size(twins.spec) == twins.torch_builder.size(twins.spec)


def test_tensorrt_builds_an_engine_of_what_it_is_lowered_to(case: Case) -> None:
    """TensorRT-RTX's, for a GPU of compute capability 8.9; ranks, dtypes and extents agree."""
    assert engine_of(case.executable._executable.program).startswith(b"vtrt")


def test_weights_that_do_not_fit_are_named_and_change_nothing() -> None:
    twins = Twins("mlp")
    module = twins.module()
    wrong = {**twins.weights, "fc1.weight": twins.weights["fc1.weight"][:1]}
    with pytest.raises(IntegrityError, match=r"fc1\.weight"):
        twins.builder.restore(module, wrong)
    with pytest.raises(IntegrityError, match=r"fc2\.bias is missing"):
        twins.builder.restore(module, {n: a for n, a in twins.weights.items() if n != "fc2.bias"})
    found = twins.builder.weights(module)
    assert all(found[name].tobytes() == twins.weights[name].tobytes() for name in found)


def test_weights_are_copies() -> None:
    twins = Twins("mlp")
    given = {name: array.copy() for name, array in twins.weights.items()}
    module = twins.builder.build(twins.spec)
    twins.builder.restore(module, given)
    for array in (*given.values(), *twins.builder.weights(module).values()):
        array[...] = 7
    found = twins.builder.weights(module)
    assert all(found[name].tobytes() == twins.weights[name].tobytes() for name in found)


Patch = pytest.MonkeyPatch


def average_for_max(patch: Patch) -> None:
    patch.setattr(lenet, "max_pool", layers.mean_pool)


def max_for_average(patch: Patch) -> None:
    patch.setattr(odenet, "mean_pool", layers.max_pool)


def another_eps(patch: Patch) -> None:
    own = tp.BatchNorm
    patch.setattr(tp, "BatchNorm", lambda channels: own(channels, eps=2e-5))


def padding_to_one_side(patch: Patch) -> None:
    def shifted(*args: Any, padding: Any, **kwargs: Any) -> Any:
        return own(*args, padding=tuple((0, before + after) for before, after in padding), **kwargs)

    own = tp.Conv
    patch.setattr(layers.tp, "Conv", shifted)


def time_before_state(patch: Patch) -> None:
    own = tp.concatenate
    patch.setattr(odenet.tp, "concatenate", lambda both, dim: own(both[::-1], dim=dim))


def another_count_of_steps(patch: Patch) -> None:
    own = Grid.of_accuracy
    patch.setattr(Grid, "of_accuracy", lambda accuracy: own(accuracy / 1.3))


def time_at_the_end_of_a_step(patch: Patch) -> None:
    patch.setattr(
        Grid, "times", property(lambda grid: [grid.step * (n + 1) for n in range(grid.steps)])
    )


def one_application(patch: Patch) -> None:
    patch.setattr(odenet, "APPLICATIONS", 1)


def channels_of_zeros_first(patch: Patch) -> None:
    own = tp.pad
    patch.setattr(he_resnet.tp, "pad", lambda x, pad: own(x, tuple((b, a) for a, b in pad)))


def every_other_pixel_from_the_second(patch: Patch) -> None:
    own = tp.maxpool

    def shifted(x: Any, window: Any, stride: Any) -> Any:
        return own(x, (2, 2), stride) if window == (1, 1) else own(x, window, stride)

    patch.setattr(he_resnet.tp, "maxpool", shifted)


MUTATIONS: list[tuple[str, Callable[[Patch], None]]] = [
    ("lenet", average_for_max),
    ("resnet", max_for_average),
    ("resnet", another_eps),
    ("resnet", padding_to_one_side),
    ("resnet", one_application),
    ("residual-odenet", time_before_state),
    ("residual-odenet", another_count_of_steps),
    ("residual-odenet", time_at_the_end_of_a_step),
    ("resnet20", channels_of_zeros_first),
    ("resnet20", every_other_pixel_from_the_second),
]


@pytest.mark.parametrize(
    ("family", "mutate"), MUTATIONS, ids=lambda each: getattr(each, "__name__", each)
)
def test_what_is_not_the_model_is_found(
    family: str, mutate: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    monkeypatch.setitem(BLOCKS, "resnet20", 1)  # a block of each kind
    twins = Twins(family)
    with monkeypatch.context() as patch:
        mutate(patch)
        executable = twins.executable(twins.module())
    assert twins.error(executable, 3) > TOLERANCE

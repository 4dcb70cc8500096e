"""Fresh weights: the same bits for the same seed, and the distributions that they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.initial import SCHEMES, fresh_weights

FIRST = [0.035324010998010635, -0.00355338747613132, 0.06959041953086853]
SHAPES = {
    "conv.weight": (8, 3, 5, 5),
    "conv.bias": (8,),
    "bn.weight": (8,),
    "bn.bias": (8,),
    "bn.running_mean": (8,),
    "bn.running_var": (8,),
    "bn.num_batches_tracked": (),
    "fc.weight": (10, 200),
    "fc.bias": (10,),
}


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
@given(order=st.permutations(sorted(SHAPES)), kept=st.integers(1, len(SHAPES)))
def test_a_tensor_has_the_same_bits_whatever_else_there_is(
    scheme: str, order: list[str], kept: int
) -> None:
    whole = fresh_weights(SHAPES, 3, scheme)
    some = {name: SHAPES[name] for name in order[:kept] if not name.endswith("bias")}
    for name, array in fresh_weights(some, 3, scheme).items():
        assert array.tobytes() == whole[name].tobytes()


def test_the_bits_are_those_of_every_machine() -> None:
    """The first values, written down: other ones would make old seeds mean something else."""
    found = fresh_weights(SHAPES, 0)["fc.weight"].ravel()[:3]
    np.testing.assert_array_equal(found, np.array(FIRST, np.float32))


def test_another_seed_and_another_name_give_others() -> None:
    twice = {"a.weight": (4, 4), "b.weight": (4, 4)}
    first, other = fresh_weights(twice, 0), fresh_weights(twice, 1)
    assert len({array.tobytes() for w in (first, other) for array in w.values()}) == 4


@pytest.mark.parametrize("shape", [(400, 300), (64, 32, 3, 3)])
def test_default_is_torch_s(shape: tuple[int, ...]) -> None:
    import torch

    torch.manual_seed(0)
    layer = (
        torch.nn.Linear(shape[1], shape[0])
        if len(shape) == 2
        else torch.nn.Conv2d(shape[1], shape[0], shape[2])
    )
    found = fresh_weights({"x.weight": shape, "x.bias": shape[:1]}, 0)
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    for name, tensor in layer.named_parameters():
        array, theirs = found[f"x.{name}"], tensor.detach().numpy()
        assert np.abs(array).max() <= bound
        assert np.abs(theirs).max() <= bound
        assert array.std() == pytest.approx(bound / math.sqrt(3), rel=0.15)
        assert theirs.std() == pytest.approx(array.std(), rel=0.2)


@pytest.mark.parametrize("shape", [(400, 300), (64, 32, 3, 3)])
def test_he_normal_has_the_paper_s_moments(shape: tuple[int, ...]) -> None:
    array = fresh_weights({"x.weight": shape}, 0, "he-normal")["x.weight"]
    std = math.sqrt(2 / math.prod(shape[1:]))
    error = 1 / math.sqrt(array.size)
    assert array.mean() == pytest.approx(0, abs=4 * std * error)
    assert array.std() == pytest.approx(std, rel=4 * error)
    assert (array**4).mean() / std**4 == pytest.approx(3, rel=0.1)  # a normal's kurtosis


def test_norms_start_as_nothing() -> None:
    found = fresh_weights(SHAPES, 0, "he-normal")
    assert (found["bn.weight"] == 1).all()
    assert (found["bn.running_var"] == 1).all()
    assert not found["bn.bias"].any()
    assert not found["bn.running_mean"].any()
    assert found["bn.num_batches_tracked"].dtype == np.int64


def test_all_but_the_counts_are_float32() -> None:
    found = fresh_weights(SHAPES, 0)
    assert {name: array.shape for name, array in found.items()} == SHAPES
    del found["bn.num_batches_tracked"]
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}


def test_an_unknown_scheme_is_an_error() -> None:
    with pytest.raises(KeyError):
        fresh_weights(SHAPES, 0, "nosuch")

"""Weights in other forms: found by value, said how, and told from what is another value."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from exporters.base import Quantisation, StoredTensor
from exporters.proof.weight_parity import Match, TensorParity, WeightParity, compare

RNG = np.random.default_rng(0)
KERNEL = RNG.standard_normal((8, 3, 5, 5)).astype(np.float32)
DENSE = RNG.standard_normal((8, 12)).astype(np.float32)

kernels = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4),
    elements=st.floats(-8, 8, width=16),
)


def store(name: str, array: np.ndarray, **extra: object) -> StoredTensor:
    return StoredTensor(name=name, array=array, readers=(f"reads {name}",), **extra)


def only(parity: WeightParity) -> TensorParity:
    (tensor,) = parity.tensors
    return tensor


def flip(array: np.ndarray, bit: int) -> np.ndarray:
    data = bytearray(array.tobytes())
    data[bit // 8] ^= 1 << bit % 8
    return np.frombuffer(bytes(data), array.dtype).reshape(array.shape)


@given(kernels, st.randoms(use_true_random=False))
def test_any_order_of_axes_is_found(array: np.ndarray, random):
    order = list(range(array.ndim))
    random.shuffle(order)
    found = only(compare({"w": array}, [store("k", array.transpose(order).copy())]))
    assert found.match in (Match.IDENTICAL, Match.TRANSPOSED, Match.RESHAPED)
    assert found.error == 0


@given(kernels)
def test_any_shape_is_found(array: np.ndarray):
    found = only(compare({"w": array}, [store("k", array.reshape(1, -1, 1))]))
    assert found.match in (Match.IDENTICAL, Match.RESHAPED)


@given(kernels, st.data())
def test_a_flipped_bit_is_found_in_any_order_of_axes(array: np.ndarray, data: st.DataObject):
    moved = array.transpose(tuple(range(array.ndim))[::-1]).copy()
    bit = data.draw(st.integers(0, moved.nbytes * 8 - 1))
    assert not compare({"w": array}, [store("k", flip(moved, bit))]).passed


@pytest.mark.parametrize("order", [(2, 3, 1, 0), (3, 2, 0, 1), (1, 0, 2, 3)], ids=str)
def test_the_order_is_said(order: tuple[int, ...]):
    found = only(compare({"conv.weight": KERNEL}, [store("k", KERNEL.transpose(order).copy())]))
    assert (found.match, found.how) == (Match.TRANSPOSED, f"axes {list(order)}")


def test_a_kernel_that_is_transposed_and_flattened_is_found():
    found = only(compare({"w": KERNEL}, [store("k", KERNEL.transpose(2, 3, 1, 0).reshape(75, 8))]))
    assert found.match is Match.TRANSPOSED
    assert found.how == "axes [2, 3, 1, 0], shape [75, 8]"


def test_the_same_values_in_an_order_of_nobody_are_not_the_weight():
    mixed = DENSE.reshape(-1)[RNG.permutation(DENSE.size)].reshape(DENSE.shape)
    parity = compare({"w": DENSE}, [store("k", mixed)])
    assert [tensor.match for tensor in parity.tensors] == [Match.MISSING, Match.EXTRA]


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_a_cast_is_found_with_its_largest_rounding(dtype: str):
    stored = DENSE.T.astype(dtype)
    found = only(compare({"fc.weight": DENSE}, [store("k", stored)]))
    assert found.match is Match.CAST
    assert found.how == f"{dtype}, axes [1, 0]"
    assert found.error == np.abs(DENSE.astype(dtype).astype(np.float64) - DENSE).max()
    assert not compare({"fc.weight": DENSE}, [store("k", flip(stored, 1))]).passed


def quantised(array: np.ndarray, axis: int | None, zero: int = 0) -> StoredTensor:
    others = tuple(a for a in range(array.ndim) if a != axis)
    peak = np.abs(array).max() if axis is None else np.abs(array).max(axis=others)
    scale = np.atleast_1d(peak / 127)
    shape = [1] * array.ndim
    if axis is not None:
        shape[axis] = -1
    numbers = np.round(array / scale.reshape(shape)) + zero
    return store(
        "k",
        numbers.astype(np.int16 if zero else np.int8),
        quantisation=Quantisation(scale=scale, zero_point=np.array([zero]), axis=axis or 0),
    )


@pytest.mark.parametrize(("axis", "zero"), [(None, 0), (0, 0), (1, 0), (None, 100)])
def test_whole_numbers_are_found_within_half_a_step(axis: int | None, zero: int):
    tensor = quantised(DENSE, axis, zero)
    found = only(compare({"w": DENSE}, [tensor]))
    assert found.match is Match.QUANTISED
    assert 0 < found.error <= np.abs(DENSE).max() / 127 / 2 * 1.001
    wrong = tensor.array.copy()
    wrong[3, 5] += 1
    altered = StoredTensor(**{**vars(tensor), "array": wrong})
    assert not compare({"w": DENSE}, [altered]).passed


def norm(channels: int) -> dict[str, np.ndarray]:
    return {
        "bn.weight": RNG.uniform(0.5, 2, channels).astype(np.float32),
        "bn.bias": RNG.standard_normal(channels).astype(np.float32),
        "bn.running_mean": RNG.standard_normal(channels).astype(np.float32),
        "bn.running_var": RNG.uniform(0.5, 2, channels).astype(np.float32),
        "bn.num_batches_tracked": np.array(7),
    }


def fold(weights: dict[str, np.ndarray], epsilon: float = 1e-5) -> tuple[np.ndarray, np.ndarray]:
    scale = weights["bn.weight"] / np.sqrt(weights["bn.running_var"] + np.float32(epsilon))
    return scale, weights["bn.bias"] - weights["bn.running_mean"] * scale


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_a_batch_norm_in_the_kernel_before_it_is_recomputed(biased: bool, epsilon: float):
    weights = {"conv.weight": KERNEL, **norm(8)}
    scale, shift = fold(weights, epsilon)
    if biased:
        weights["conv.bias"] = RNG.standard_normal(8).astype(np.float32)
        shift = shift + weights["conv.bias"] * scale
    stored = [store("k", KERNEL * scale[:, None, None, None]), store("b", shift)]
    parity = compare(weights, stored)
    assert parity.passed
    assert {tensor.match for tensor in parity.tensors} == {Match.FOLDED}
    assert all(f"eps {epsilon:g}" in tensor.how for tensor in parity.tensors)
    for place, (kernel, bias) in itertools.product(
        ((0, 0, 0, 0), (7, 2, 4, 4)), ((1 + 1e-5, 1), (1, 1 + 1e-4))
    ):
        wrong = [tensor.array.copy() for tensor in stored]
        wrong[0][place] *= kernel
        wrong[1][place[0]] *= bias
        if np.array_equal(wrong[0], stored[0].array) and np.array_equal(wrong[1], stored[1].array):
            continue
        altered = [store("k", wrong[0]), store("b", wrong[1])]
        assert not compare(weights, altered).passed


def test_a_batch_norm_as_scale_and_shift_is_recomputed():
    weights = norm(8)
    scale, shift = fold(weights)
    parity = compare(weights, [store("s", scale[:, None, None]), store("t", shift[:, None, None])])
    assert parity.passed
    assert parity.count(Match.FOLDED) == 4


def test_a_batch_norm_without_a_scale_is_no_fold():
    """A variance below zero."""
    weights = norm(8)
    scale, shift = fold(weights)
    stored = [store("scale", scale), store("shift", shift)]
    assert compare(weights, stored).passed
    assert not compare({**weights, "bn.running_var": -weights["bn.running_var"]}, stored).passed


@pytest.mark.parametrize("part", ["weight", "bias", "running_mean", "running_var"])
def test_one_altered_part_of_a_batch_norm_is_no_fold(part: str):
    weights = norm(8)
    stored = [
        store(name, flip(array, 0) if name == f"bn.{part}" else array)
        for name, array in weights.items()
    ]
    parity = compare(weights, stored)
    assert [(t.name, t.match) for t in parity.failures()] == [(f"bn.{part}", Match.ALTERED)]


def test_weights_that_changed_places_are_told_by_the_layers_in_the_names():
    """Names of a converter's own, the layers' paths in them, and kernels in another layout."""
    weights = {"a.fc.weight": DENSE, "b.fc.weight": DENSE[::-1].copy()}
    right = [store("net/a.fc/MatMul", DENSE.T.copy()), store("net/b.fc/MatMul", DENSE[::-1].T)]
    assert compare(weights, right).passed
    wrong = [store("net/a.fc/MatMul", DENSE[::-1].T), store("net/b.fc/MatMul", DENSE.T.copy())]
    parity = compare(weights, wrong)
    assert [tensor.match for tensor in parity.failures()] == [Match.ALTERED] * 2


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("centred", [True, False])
def test_a_batch_norm_of_keras_is_recomputed(scaled: bool, centred: bool):
    """Kernel [H, W, I, O], and a norm that may lack its weight or its bias."""
    rng = np.random.default_rng(0)
    weights = {
        "conv/kernel": rng.standard_normal((3, 3, 2, 4)).astype(np.float32),
        "conv/bias": rng.standard_normal(4).astype(np.float32),
        "norm/moving_mean": rng.standard_normal(4).astype(np.float32),
        "norm/moving_variance": rng.uniform(0.5, 2, 4).astype(np.float32),
    }
    if scaled:
        weights["norm/gamma"] = rng.uniform(0.5, 2, 4).astype(np.float32)
    if centred:
        weights["norm/beta"] = rng.standard_normal(4).astype(np.float32)
    scale = weights.get("norm/gamma", 1) / np.sqrt(weights["norm/moving_variance"] + 1e-3)
    kernel = (weights["conv/kernel"] * scale).transpose(3, 0, 1, 2)  # as LiteRT has it
    bias = (weights["conv/bias"] - weights["norm/moving_mean"]) * scale
    stored = [
        StoredTensor(name="a", array=kernel.astype(np.float32), readers=("conv",)),
        StoredTensor(
            name="b",
            array=(bias + weights.get("norm/beta", 0)).astype(np.float32),
            readers=("conv",),
        ),
    ]
    parity = compare(weights, stored)
    assert parity.passed
    assert parity.count(Match.FOLDED) == len(weights)
    for name, array in weights.items():
        wrong = {**weights, name: array * np.float32(1.01)}
        assert not compare(wrong, stored).passed, name

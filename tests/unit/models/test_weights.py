"""Weights under the names and in the layouts of Keras and Flax, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.weights import from_flax, from_keras, refuse_misfit, to_flax, to_keras
from toolkit.core.errors import IntegrityError, PluginError

EXTENTS = st.integers(1, 4)
PARTS = st.from_regex(r"[a-z][a-z0-9_]{0,5}|[0-9]{1,2}", fullmatch=True)
LAYERS = st.lists(
    st.lists(PARTS, min_size=1, max_size=3).map(".".join), min_size=1, max_size=5, unique=True
)


@st.composite
def weights(draw: Any) -> dict[str, np.ndarray]:
    """A state_dict of convolutions, dense layers and norms under any names, every bit random."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    found: dict[str, np.ndarray] = {}

    def bits(*shape: int) -> np.ndarray:
        return rng.integers(0, 2**32, shape, np.uint32).view(np.float32)

    for layer in draw(LAYERS):
        outputs, inputs = draw(EXTENTS), draw(EXTENTS)
        kind = draw(st.sampled_from(["conv", "dense", "norm"]))
        if kind == "norm":
            for name in ("weight", "bias", "running_mean", "running_var"):
                found[f"{layer}.{name}"] = bits(outputs)
            found[f"{layer}.num_batches_tracked"] = np.zeros((), np.int64)
            continue
        sides = (draw(EXTENTS), draw(EXTENTS)) if kind == "conv" else ()
        found[f"{layer}.weight"] = bits(outputs, inputs, *sides)
        if draw(st.booleans()):
            found[f"{layer}.bias"] = bits(outputs)
    return found


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


@given(weights())
@settings(deadline=None)
def test_there_and_back_is_every_bit(original: dict[str, np.ndarray]) -> None:
    same(from_keras(to_keras(original)), original)
    same(from_flax(to_flax(original)), original)


@given(weights())
@settings(deadline=None)
def test_arrays_are_new_and_in_c_order(original: dict[str, np.ndarray]) -> None:
    leaves = [
        leaf for c in to_flax(original).values() for kinds in c.values() for leaf in kinds.values()
    ]
    for array in (*to_keras(original).values(), *leaves, *from_keras(to_keras(original)).values()):
        assert array.flags.c_contiguous
        assert not any(np.shares_memory(array, own) for own in original.values())


def example() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "stages.0.conv.weight": (2, 3, 4, 5),
        "stages.0.conv.bias": (2,),
        "stages.0.bn.weight": (2,),
        "stages.0.bn.bias": (2,),
        "stages.0.bn.running_mean": (2,),
        "stages.0.bn.running_var": (2,),
        "fc.weight": (6, 7),
        "fc.bias": (6,),
    }
    found = {name: rng.random(shape, np.float32) for name, shape in shapes.items()}
    return {**found, "stages.0.bn.num_batches_tracked": np.array(17)}


def test_keras_names_and_layouts() -> None:
    own = example()
    found = to_keras(own)
    assert {name: array.shape for name, array in found.items()} == {
        "stages.0.conv/kernel": (4, 5, 3, 2),
        "stages.0.conv/bias": (2,),
        "stages.0.bn/gamma": (2,),
        "stages.0.bn/beta": (2,),
        "stages.0.bn/moving_mean": (2,),
        "stages.0.bn/moving_variance": (2,),
        "fc/kernel": (7, 6),
        "fc/bias": (6,),
    }
    assert found["stages.0.conv/kernel"][3, 1, 2, 0] == own["stages.0.conv.weight"][0, 2, 3, 1]
    assert found["fc/kernel"][5, 2] == own["fc.weight"][2, 5]
    for keras, torch in [("gamma", "weight"), ("beta", "bias"), ("moving_variance", "running_var")]:
        np.testing.assert_array_equal(found[f"stages.0.bn/{keras}"], own[f"stages.0.bn.{torch}"])


def test_flax_names_and_layouts() -> None:
    own = example()
    found = to_flax(own)
    assert {c: {n: sorted(k) for n, k in layers.items()} for c, layers in found.items()} == {
        "params": {
            "stages.0.conv": ["bias", "kernel"],
            "stages.0.bn": ["bias", "scale"],
            "fc": ["bias", "kernel"],
        },
        "batch_stats": {"stages.0.bn": ["mean", "var"]},
    }
    kernel = found["params"]["stages.0.conv"]["kernel"]
    assert kernel[3, 1, 2, 0] == own["stages.0.conv.weight"][0, 2, 3, 1]
    assert found["params"]["fc"]["kernel"][5, 2] == own["fc.weight"][2, 5]
    np.testing.assert_array_equal(
        found["batch_stats"]["stages.0.bn"]["var"], own["stages.0.bn.running_var"]
    )


def test_a_model_without_norms_has_no_batch_stats() -> None:
    assert list(to_flax({"fc.weight": np.zeros((2, 3), np.float32)})) == ["params"]


def test_the_count_of_batches_comes_back_as_zero() -> None:
    for found in (from_keras(to_keras(example())), from_flax(to_flax(example()))):
        count = found["stages.0.bn.num_batches_tracked"]
        assert (count.dtype, count.shape, count) == (np.int64, (), 0)


def test_a_keras_layer_inside_a_layer_has_a_dotted_name() -> None:
    kernel = np.zeros((3, 2), np.float32)
    assert list(from_keras({"outer/inner/kernel": kernel})) == ["outer.inner.weight"]


@pytest.mark.parametrize(
    "convert",
    [
        lambda: to_keras({"cell.weight_hh": np.zeros((2, 2))}),
        lambda: to_flax({"cell.weight_hh": np.zeros((2, 2))}),
        lambda: from_keras({"cell/recurrent_kernel": np.zeros((2, 2))}),
        lambda: from_flax({"params": {"cell": {"hi": np.zeros((2, 2))}}}),
    ],
)
def test_a_kind_without_a_rule_is_named(convert: Any) -> None:
    with pytest.raises(PluginError, match=r"No rule says what .*cell.* is called"):
        convert()


def test_all_that_does_not_fit_is_named_at_once() -> None:
    own = {name: np.zeros((2, 3), np.float32) for name in ("a", "b", "c")}
    given = {"b": np.zeros((3, 2), np.float32), "c": np.zeros((2, 3)), "d": own["a"]}
    with pytest.raises(IntegrityError) as error:
        refuse_misfit(own, given)
    for part in ("a is missing", "d is not", r"b is float32[3, 2]", "c is float64[2, 3]"):
        assert part in error.value.problem
    refuse_misfit(own, dict(own))

"""The proof by value: nothing altered, dropped, unread or added gets through."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from exporters.base import StoredTensor
from exporters.proof.matching import tensor_digest
from exporters.proof.weight_parity import Match, WeightParity, compare

Weights = dict[str, np.ndarray]

A = np.array([1, 2], np.float32)
B = np.array([3, 4], np.float32)

tensors = hnp.arrays(
    st.sampled_from(["float32", "float16", "int8", "int64", "bool"]),
    hnp.array_shapes(min_dims=0, max_dims=2, max_side=3),
)
names = st.text("abw.", min_size=1, max_size=4)
models = st.dictionaries(names, tensors, min_size=1, max_size=5)


def store(name: str, array: np.ndarray, *readers: str) -> StoredTensor:
    return StoredTensor(name=name, array=array, readers=readers)


def stored_under_its_name(weights: Weights) -> list[StoredTensor]:
    return [store(name, array, f"reads {name}") for name, array in weights.items()]


def matches(parity: WeightParity) -> dict[str, Match]:
    return {tensor.name: tensor.match for tensor in parity.tensors}


def flip(array: np.ndarray, bit: int) -> np.ndarray:
    data = bytearray(array.tobytes())
    data[bit // 8] ^= 1 << bit % 8
    return np.frombuffer(bytes(data), array.dtype).reshape(array.shape)


@given(models, st.randoms(use_true_random=False), st.booleans())
def test_any_order_and_any_names_match(weights: Weights, random, rename: bool):
    stored = [
        store(f"n{i}" if rename else name, array.copy(), "reader")
        for i, (name, array) in enumerate(weights.items())
    ]
    random.shuffle(stored)
    parity = compare(weights, stored)
    assert parity.passed
    assert parity.explained == parity.total == len(weights)
    assert parity.failures() == []
    assert sorted(t.stored_as for t in parity.tensors) == sorted(t.name for t in stored)


@given(models, st.data())
def test_one_flipped_bit_is_altered_under_its_name(weights: Weights, data: st.DataObject):
    name = data.draw(st.sampled_from(sorted(weights)))
    bit = data.draw(st.integers(0, weights[name].nbytes * 8 - 1))
    parity = compare(weights, stored_under_its_name({**weights, name: flip(weights[name], bit)}))
    assert not parity.passed
    assert [(t.name, t.match) for t in parity.failures()] == [(name, Match.ALTERED)]
    assert parity.explained == len(weights) - 1


@given(models, st.data())
def test_one_flipped_bit_is_missing_under_new_names(weights: Weights, data: st.DataObject):
    name = data.draw(st.sampled_from(sorted(weights)))
    bit = data.draw(st.integers(0, weights[name].nbytes * 8 - 1))
    altered = {**weights, name: flip(weights[name], bit)}
    stored = [store(f"n{i}", array, "reader") for i, array in enumerate(altered.values())]
    parity = compare(weights, stored)
    assert not parity.passed
    assert Match.MISSING in matches(parity).values()


@given(models, st.data())
def test_one_missing_tensor_is_found(weights: Weights, data: st.DataObject):
    name = data.draw(st.sampled_from(sorted(weights)))
    rest = {key: array for key, array in weights.items() if key != name}
    parity = compare(weights, stored_under_its_name(rest))
    assert not parity.passed
    assert matches(parity)[name] is Match.MISSING


@given(models, st.data())
def test_one_unread_tensor_is_found(weights: Weights, data: st.DataObject):
    name = data.draw(st.sampled_from(sorted(weights)))
    stored = [
        store(key, array, *(() if key == name else ("reader",))) for key, array in weights.items()
    ]
    parity = compare(weights, stored)
    assert not parity.passed
    assert matches(parity)[name] is Match.UNUSED


@given(tensors)
def test_digest_tells_shape_and_dtype_apart(array: np.ndarray):
    assert tensor_digest(array) == tensor_digest(array.copy(order="F"))
    assert tensor_digest(array) == tensor_digest(array.astype(array.dtype.newbyteorder(">")))
    assert tensor_digest(array) != tensor_digest(array[None])
    if array.dtype.itemsize == 1:
        assert tensor_digest(array) != tensor_digest(array.view(np.uint8))


@pytest.mark.parametrize(
    ("weight", "stored"),
    [
        (np.float32([0.0, 1.0]), np.float32([-0.0, 1.0])),
        (np.float32([1.0, 2.0]), np.float64([1.0, 2.0])),
        (np.float32([[1.0, 2.0]]), np.float32([[1.0], [2.0]])),
        (np.float32([np.nan, 1.0]), flip(np.float32([np.nan, 1.0]), 0)),
    ],
    ids=["minus zero", "wider", "transposed", "another NaN"],
)
def test_equal_numbers_in_other_bits_are_altered(weight: np.ndarray, stored: np.ndarray):
    assert matches(compare({"w": weight}, [store("w", stored, "r")])) != {"w": Match.IDENTICAL}
    assert compare({"w": weight}, [store("w", weight.copy(), "r")]).passed


def test_weights_of_equal_value_share_a_tensor_with_a_reader_for_each():
    weights = {"a": A, "b": A.copy()}
    assert compare(weights, [store("a", A, "r1", "r2")]).passed
    parity = compare(weights, [store("a", A, "r1")])
    assert matches(parity) == {"a": Match.IDENTICAL, "b": Match.MISSING}


def test_among_equal_values_the_own_name_comes_first():
    parity = compare({"b": A, "a": A.copy()}, [store("a", A, "ra"), store("b", A, "rb")])
    assert [(t.name, t.stored_as, t.readers) for t in parity.tensors] == [
        ("b", "b", ("rb",)),
        ("a", "a", ("ra",)),
    ]


def test_contents_swapped_between_names_show_in_where_they_are_stored():
    parity = compare({"a": A, "b": B}, [store("a", B, "reads a"), store("b", A, "reads b")])
    assert {t.name: (t.match, t.stored_as, t.readers) for t in parity.tensors} == {
        "a": (Match.ALTERED, "b", ("reads b",)),
        "b": (Match.ALTERED, "a", ("reads a",)),
    }


def test_contents_swapped_between_names_are_no_proof():
    swapped = [store("a", B, "reads a"), store("b", A, "reads b")]
    assert not compare({"a": A, "b": B}, swapped).passed


def test_a_scale_of_the_source_is_no_weight_and_another_is():
    stored = [store("a", A, "r"), store("s", B, "r")]
    assert compare({"a": A}, stored, scales=[B]).passed
    assert matches(compare({"a": A}, stored, scales=[B * np.float32(1.001)]))["s"] is Match.EXTRA


@pytest.mark.parametrize("extra", [B, B.astype(np.float16), B.astype(np.complex64)])
def test_a_read_tensor_that_is_no_weight_fails_the_proof(extra: np.ndarray):
    parity = compare({"a": A}, [store("a", A, "r"), store("x", extra, "r")])
    assert not parity.passed
    assert (parity.explained, parity.total) == (1, 1)
    assert [(t.name, t.match) for t in parity.failures()] == [("x", Match.EXTRA)]


@pytest.mark.parametrize(
    "harmless",
    [
        store("axes", np.array([0, 1]), "r"),
        store("mask", np.array([True, False]), "r"),
        store("scale", np.float32(2.0), "r"),
        store("no bias", np.zeros(16, np.float32), "r"),
        store("dead", B),
    ],
    ids=lambda tensor: tensor.name,
)
def test_what_cannot_be_a_weight_is_let_through(harmless: StoredTensor):
    parity = compare({"a": A}, [store("a", A, "r"), harmless])
    assert parity.passed
    assert len(parity.tensors) == 1


def test_proof_as_json_says_everything():
    parity = compare({"a": A, "b": B}, [store("n", A, "node (Add)")])
    data = json.loads(json.dumps(parity.to_json()))
    assert (data["passed"], data["explained"], data["total"]) == (False, 1, 2)
    assert data["tensors"][0] == {
        "name": "a",
        "match": "identical",
        "shape": [2],
        "dtype": "float32",
        "digest": tensor_digest(A),
        "stored_as": "n",
        "readers": ["node (Add)"],
        "how": "",
        "error": 0.0,
    }
    assert data["tensors"][1]["match"] == "missing"

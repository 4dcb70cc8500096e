"""Signatures: what fits is taken and measured, what does not is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from toolkit.core.codec import decode, encode
from toolkit.core.errors import FeedError, PluginError
from toolkit.core.specs import Feeds, ModelSpec, Signature, TensorSpec

AXES = {"batch": 3, "length": 2}
DTYPES = ("float32", "float16", "int64", "bool")

dims = st.integers(0, 4) | st.sampled_from([*AXES, None])
tensors = st.builds(
    lambda dtype, shape: TensorSpec(name="", dtype=dtype, shape=tuple(shape)),
    st.sampled_from(DTYPES),
    st.lists(dims, max_size=4),
)


def named(specs: list[TensorSpec]) -> Signature:
    inputs = tuple(
        TensorSpec(name=f"in{i}", dtype=spec.dtype, shape=spec.shape)
        for i, spec in enumerate(specs)
    )
    return Signature(inputs=inputs, outputs=(TensorSpec(name="y", dtype="float32", shape=()),))


signatures = st.lists(tensors, min_size=1, max_size=3).map(named)


def fitting(signature: Signature) -> dict[str, np.ndarray]:
    def extent(dim: int | str | None) -> int:
        return AXES[dim] if isinstance(dim, str) else 1 if dim is None else dim

    return {
        spec.name: np.zeros([extent(dim) for dim in spec.shape], spec.dtype)
        for spec in signature.inputs
    }


@given(signatures)
def test_fitting_feeds_give_the_extent_of_every_named_axis(signature: Signature):
    used = {dim for spec in signature.inputs for dim in spec.shape if isinstance(dim, str)}
    assert signature.check(fitting(signature)) == {name: AXES[name] for name in used}


@given(signatures, st.data())
def test_one_wrong_extent_is_refused(signature: Signature, data: st.DataObject):
    feeds = fitting(signature)
    fixed = [
        (spec.name, axis)
        for spec in signature.inputs
        for axis, dim in enumerate(spec.shape)
        if isinstance(dim, int)
    ]
    assume(fixed)
    name, axis = data.draw(st.sampled_from(fixed))
    shape = list(feeds[name].shape)
    shape[axis] += 1
    refused(signature, {**feeds, name: np.zeros(shape, feeds[name].dtype)}, name)


@given(signatures, st.data())
def test_one_wrong_rank_dtype_or_kind_is_refused(signature: Signature, data: st.DataObject):
    feeds = fitting(signature)
    name = data.draw(st.sampled_from(sorted(feeds)))
    array = feeds[name]
    wrong = [array[None], array.astype("float64"), array.tolist()]
    refused(signature, {**feeds, name: data.draw(st.sampled_from(wrong))}, name)


@given(signatures)
def test_missing_and_extra_inputs_are_refused(signature: Signature):
    feeds = fitting(signature)
    refused(signature, {**feeds, "other": np.zeros(1)}, "other")
    first = signature.inputs[0].name
    refused(signature, {name: feeds[name] for name in feeds if name != first}, first)


def refused(signature: Signature, feeds: Feeds, name: str) -> None:
    with pytest.raises(FeedError) as caught:
        signature.check(feeds)
    assert f"Input {name!r}" in caught.value.problem


def test_axis_of_one_name_has_one_extent_over_all_inputs():
    signature = named([TensorSpec(name="", dtype="float32", shape=("batch",))] * 2)
    feeds = {"in0": np.zeros(2, np.float32), "in1": np.zeros(3, np.float32)}
    with pytest.raises(FeedError, match=r"'in1' has shape \[3\].*\{'batch': 2\}"):
        signature.check(feeds)


def test_wrong_byte_order_is_refused():
    signature = named([TensorSpec(name="", dtype="float32", shape=(2,))])
    refused(signature, {"in0": np.zeros(2, ">f4")}, "in0")


def test_layout_has_a_letter_for_each_axis():
    with pytest.raises(PluginError, match="one letter for each axis"):
        TensorSpec(name="x", dtype="float32", shape=(1, 2), layout="NCH")


def test_resolve_puts_extents_in_the_place_of_names():
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 3, None, "other"))
    assert spec.resolve({"batch": 8}) == (8, 3, None, None)


def test_spec_reads_as_name_dtype_and_shape():
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 3, None))
    assert str(spec) == "x: float32[batch, 3, ?]"


@given(signatures)
def test_model_spec_round_trips_through_json(signature: Signature):
    spec = ModelSpec(
        name="m",
        family="f",
        framework="torch",
        signature=signature,
        data="digits",
        hyperparameters={"classes": 10, "widths": [1, 2]},
    )
    assert decode(json.loads(json.dumps(encode(spec))), ModelSpec, "a test") == spec


def of(**shapes: tuple[int | str | None, ...]) -> Signature:
    inputs = tuple(TensorSpec(name=n, dtype="float32", shape=s) for n, s in shapes.items())
    return Signature(inputs=inputs, outputs=())


@pytest.mark.parametrize(
    ("signature", "axis", "positions"),
    [
        (of(x=("n", 4)), "n", {"x": 0}),
        (of(x=("time", "batch", 4), h=(2, "batch", 4)), "batch", {"x": 1, "h": 1}),
        (of(scale=(1,), x=("n", 4)), "n", {"scale": None, "x": 0}),
        (of(step=(), x=(None, 4), y=(None, 2)), None, {"step": None, "x": 0, "y": 0}),
        (of(x=(8, 4), y=(8,), table=(3, 3)), 8, {"x": 0, "y": 0, "table": None}),
        (of(step=()), None, {"step": None}),
        (of(), None, {}),
    ],
)
def test_the_batch_is_on_any_axis_or_none(
    signature: Signature, axis: str | int | None, positions: dict[str, int | None]
) -> None:
    assert signature.batch_axis == axis
    assert {s.name: signature.batch_position(s) for s in signature.inputs} == positions


def test_rows_are_taken_along_the_batch_of_each_input() -> None:
    signature = of(x=("batch", 4), h=(2, "batch", 3), table=(5, 5))
    feeds = {
        name: np.arange(np.prod(shape)).reshape(shape)
        for name, shape in {"x": (6, 4), "h": (2, 6, 3), "table": (5, 5)}.items()
    }
    assert signature.count_rows(feeds) == 6
    picked = signature.rows(feeds, np.array([4, 1]))
    np.testing.assert_array_equal(picked["x"], feeds["x"][[4, 1]])
    np.testing.assert_array_equal(picked["h"], feeds["h"][:, [4, 1]])
    np.testing.assert_array_equal(picked["table"], feeds["table"])
    assert of(step=()).count_rows({"step": np.float32(1)[None].reshape(())}) is None

"""Frames over a pipe: what goes in comes out, and a broken pipe is no frame."""

from __future__ import annotations

import io

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from toolkit.core.errors import FeedError
from toolkit.measuring.workers import wire

DTYPES = ("bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
messages = st.dictionaries(st.text(), values, max_size=4)
tensors = npst.arrays(
    st.sampled_from(DTYPES), npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
)
names = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda n: n != "__metadata__")


def sent(message: dict, arrays: dict | None = None) -> bytes:
    stream = io.BytesIO()
    wire.send(stream, wire.encode(message, arrays))
    return stream.getvalue()


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    """Bit by bit, so that NaN and the sign of zero count."""
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    assert got.tobytes() == expected.tobytes()


@settings(deadline=None)
@given(messages, st.dictionaries(names, tensors, max_size=3))
def test_what_is_sent_is_received(message: dict, arrays: dict) -> None:
    received = wire.receive(io.BytesIO(sent(message, arrays)))
    assert received is not None
    assert received[0] == message
    assert received[1].keys() == arrays.keys()
    for name, array in arrays.items():
        assert_same(received[1][name], array)


@pytest.mark.parametrize(
    "view",
    [
        np.arange(12.0).reshape(3, 4).T,
        np.arange(12, dtype=np.int64)[::-1],
        np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, ::2, 1:3],
        np.broadcast_to(np.float16(1.5), (3, 2)),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    ],
    ids=["transposed", "reversed", "sliced", "broadcast", "fortran"],
)
def test_a_view_arrives_with_its_own_values(view: np.ndarray) -> None:
    received = wire.receive(io.BytesIO(sent({}, {"x": view})))
    assert received is not None
    np.testing.assert_array_equal(received[1]["x"], view)


def test_big_endian_values_survive() -> None:
    array = np.arange(5, dtype=">f4")
    received = wire.receive(io.BytesIO(sent({}, {"x": array})))
    assert received is not None
    np.testing.assert_array_equal(received[1]["x"], array)


def test_frames_follow_each_other() -> None:
    stream = io.BytesIO(sent({"n": 1}) + sent({"n": 2}, {"x": np.ones(3)}) + sent({"n": 3}))
    frames = [wire.receive(stream) for _ in range(3)]
    assert [frame[0]["n"] for frame in frames if frame] == [1, 2, 3]
    assert [list(frame[1]) for frame in frames if frame] == [[], ["x"], []]
    assert wire.receive(stream) is None


def test_a_truncated_frame_is_none_wherever_it_is_cut() -> None:
    frame = sent({"command": "run"}, {"x": np.arange(4.0)})
    assert wire.receive(io.BytesIO(frame)) is not None
    for cut in range(len(frame)):
        assert wire.receive(io.BytesIO(frame[:cut])) is None, cut


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "int4"])
def test_arrays_of_ml_dtypes_keep_their_dtype(name: str) -> None:
    array = np.array([[0, 1], [-1, 2]]).astype(getattr(ml_dtypes, name))
    received = wire.receive(io.BytesIO(sent({}, {"x": array})))
    assert received is not None
    assert_same(received[1]["x"], array)


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)


@settings(deadline=None)
@given(st.lists(texts, max_size=4), st.booleans())
def test_strings_arrive_as_objects(strings: list[str], fixed: bool) -> None:
    array = np.array(strings, np.str_ if fixed else object)[:, None]
    received = wire.receive(io.BytesIO(sent({}, {"x": array})))
    assert received is not None
    found = received[1]["x"]
    assert found.dtype == object
    assert found.shape == array.shape
    assert found.ravel().tolist() == strings


def test_objects_that_are_no_strings_are_refused() -> None:
    with pytest.raises(FeedError, match="no strings"):
        wire.encode({}, {"x": np.array([1, None], object)})

"""Outputs against a reference: bounds, NaN, infinity, names, shapes and dtypes."""

from __future__ import annotations

import ml_dtypes  # noqa: F401 - lends NumPy the name bfloat16
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toolkit.core.errors import UsageError
from toolkit.core.measurement import Agreement
from toolkit.parity.outputs import as_dtype_of, combine, compare_outputs
from toolkit.parity.tolerances import TOLERANCES, Tolerance, tolerance_for

TOLERANCE = Tolerance(absolute=1e-6, relative=1e-5, agreement=0.999, why="a test")
NAN, INF = float("nan"), float("inf")

shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)
finite = st.floats(-1e6, 1e6, width=32)
arrays = hnp.arrays(np.float32, shapes, elements=finite)


def compare(got: object, reference: object) -> Agreement:
    return compare_outputs(
        {"y": np.asarray(got, np.float32)}, {"y": np.asarray(reference, np.float32)}, TOLERANCE
    )


@pytest.mark.parametrize(
    ("dtype", "reference", "found"),
    [
        ("float16", "float32", "float32"),
        ("float64", "float32", "float32"),
        ("bfloat16", "float32", "float32"),
        ("float32", "bfloat16", "bfloat16"),
        ("int8", "float32", "int8"),
        ("float32", "int64", "float32"),
    ],
)
def test_only_floating_point_takes_the_dtype_of_the_reference(dtype, reference, found):
    one, other = (np.ones(3, np.dtype(name)) for name in (dtype, reference))
    assert as_dtype_of(other, one).dtype.name == found


@given(arrays)
def test_an_output_agrees_with_itself(array: np.ndarray):
    agreement = compare(array, array.copy())
    assert agreement == Agreement(passed=True, max_abs=0.0, max_rel=0.0)


@given(arrays, st.data())
def test_passes_exactly_within_the_bound(reference: np.ndarray, data: st.DataObject):
    noise = data.draw(hnp.arrays(np.float64, reference.shape, elements=st.floats(-1e-4, 1e-4)))
    got = (reference + noise).astype(np.float32)
    a, b = got.astype(np.float64), reference.astype(np.float64)
    bound = TOLERANCE.absolute + TOLERANCE.relative * np.abs(b).max()
    agreement = compare(got, reference)
    assert agreement.passed == (np.abs(a - b).max() <= bound)
    assert agreement.max_abs == np.abs(a - b).max()
    assert (agreement.reason is None) == agreement.passed


@given(arrays, st.data(), st.sampled_from([NAN, INF, -INF]))
def test_one_value_that_is_not_finite_fails_either_way(array, data: st.DataObject, value: float):
    other = array.copy()
    other.reshape(-1)[data.draw(st.integers(0, array.size - 1))] = value
    for pair in ((array, other), (other, array)):
        agreement = compare(*pair)
        assert not agreement.passed
        assert (
            agreement.reason == "y has NaN or infinity where the reference has not, or the reverse"
        )


def test_difference_is_measured_against_the_largest_of_the_reference():
    agreement = compare([100.0, 0.0], [100.0, 0.0005])
    assert agreement.passed
    assert agreement.max_abs == pytest.approx(5e-4)
    assert agreement.max_rel == pytest.approx(5e-6)


def test_too_large_a_difference_says_how_large():
    agreement = compare([1.0], [2.0])
    assert not agreement.passed
    assert agreement.reason == "y differs by 1, allowed 2.1e-05"


@pytest.mark.parametrize(("got", "passed"), [(0.0, True), (9e-7, True), (1e-3, False)])
def test_zero_reference_has_an_absolute_bound_only(got: float, passed: bool):
    agreement = compare([got], [0.0])
    assert agreement.passed == passed
    assert agreement.max_rel == (None if got else 0.0)


@pytest.mark.parametrize("value", [NAN, INF])
def test_what_is_not_finite_agrees_with_itself_in_its_place(value: float):
    assert compare([value, 1.0], [value, 1.0]).passed
    assert not compare([value, 1.0], [1.0, value]).passed
    assert not compare([value, 1.0], [value, 2.0]).passed


def test_infinities_of_other_sign_differ():
    assert not compare([INF], [-INF]).passed


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_empty_outputs_agree(shape: tuple[int, ...]):
    assert compare(np.zeros(shape), np.zeros(shape)).passed


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (np.zeros((3, 2), np.float32), "y is float32[3, 2], expected float32[2, 3]"),
        (np.zeros((1, 2, 3), np.float32), "y is float32[1, 2, 3], expected float32[2, 3]"),
        (np.zeros((0, 3), np.float32), "y is float32[0, 3], expected float32[2, 3]"),
        (np.zeros((2, 3), np.float64), "y is float64[2, 3], expected float32[2, 3]"),
        (np.zeros((2, 3), np.int32), "y is int32[2, 3], expected float32[2, 3]"),
    ],
)
def test_other_shape_or_dtype_is_named(got: np.ndarray, expected: str):
    agreement = compare_outputs({"y": got}, {"y": np.zeros((2, 3), np.float32)}, TOLERANCE)
    assert agreement == Agreement(passed=False, max_abs=None, max_rel=None, reason=expected)


@pytest.mark.parametrize("names", [["z"], ["y", "z"], []])
def test_other_names_are_named(names: list[str]):
    one = np.zeros(1, np.float32)
    agreement = compare_outputs(dict.fromkeys(names, one), {"y": one}, TOLERANCE)
    assert not agreement.passed
    assert agreement.reason == f"outputs are {names}, expected ['y']"


def test_one_bad_output_of_two_fails_with_its_reason():
    good, bad = np.ones(2, np.float32), np.full(2, 2, np.float32)
    agreement = compare_outputs({"a": good, "b": bad}, {"a": good, "b": good}, TOLERANCE)
    assert not agreement.passed
    assert agreement.max_abs == 1.0
    assert agreement.reason is not None
    assert agreement.reason.startswith("b differs")


def test_combined_is_the_worst_and_the_first_reason():
    fine = Agreement(passed=True, max_abs=1.0, max_rel=0.5)
    refused = Agreement(passed=False, max_abs=None, max_rel=None, reason="first")
    far = Agreement(passed=False, max_abs=3.0, max_rel=0.1, reason="second")
    assert combine([fine, refused, far]) == Agreement(
        passed=False, max_abs=3.0, max_rel=0.5, reason="first"
    )
    assert combine([fine, fine]) == fine


def test_another_integer_is_another_answer():
    token, other = np.array([150_000]), np.array([150_001])
    assert not compare_outputs({"y": other}, {"y": token}, TOLERANCE).passed


def test_every_tolerance_says_why():
    assert all(len(tolerance.why.split()) > 5 for tolerance in TOLERANCES.values())


def test_precision_without_a_tolerance_is_a_usage_error():
    assert tolerance_for("float32") is TOLERANCES["float32"]
    with pytest.raises(UsageError, match=r"'float7'; known: .*float32"):
        tolerance_for("float7")

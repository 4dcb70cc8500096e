"""Outputs beside a float64 oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.parity.judging import (
    beyond_rounding,
    bound_of,
    departs,
    judge,
    judge_graph,
    worst,
)
from toolkit.parity.tolerances import ROUNDOFF

EXACT = np.linspace(-1, 1, 12).reshape(3, 4)
REFERENCE = EXACT.astype(np.float32)


def outputs(array: np.ndarray) -> dict[str, np.ndarray]:
    return {"logits": array}


def judged(got: np.ndarray, precision: str = "float32", reference: np.ndarray = REFERENCE):
    return judge(outputs(got), outputs(reference), outputs(EXACT), precision)


def test_the_reference_itself_passes() -> None:
    found = judged(REFERENCE)
    assert found.passed
    assert found.error == found.reference_error
    assert found.order == 1.0


@pytest.mark.parametrize("precision", ["float32", "tf32", "float16", "bfloat16"])
def test_what_is_off_by_more_than_is_allowed_fails(precision: str) -> None:
    bound = judged(REFERENCE, precision).bound
    assert bound
    for times, passes in ((0.9, True), (1.1, False)):
        got = (EXACT + times * bound).astype(np.float32)
        found = judged(got, precision)
        assert found.passed is passes, found
        assert passes or "off by" in (found.reason or "")


def test_a_model_that_rounds_much_is_allowed_more() -> None:
    """What the float32 reference itself is off by sets the measure."""
    rough = (EXACT + 5e-5).astype(np.float32)
    got = (EXACT - 1e-4).astype(np.float32)
    assert judged(got, reference=rough).passed
    assert not judged(got).passed


@pytest.mark.parametrize("precision", ["float32", "tf32", "float16", "bfloat16"])
def test_half_of_the_digits_must_be_right_whatever_the_reference_lost(precision: str) -> None:
    """A reference or an oracle that is wrong by any amount allows no more than that."""
    most = ROUNDOFF[precision] ** 0.5
    for times, passes in ((0.9, True), (1.1, False)):
        got = (EXACT + times * most).astype(np.float32)
        found = judged(got, precision, (EXACT + 1).astype(np.float32))
        assert (found.passed and found.conclusive) is passes
    far = judge(outputs(EXACT + 1.1 * most), outputs(EXACT), outputs(EXACT), precision,
                equal_terms=10**9)  # fmt: skip
    assert not far.passed


def test_a_float64_result_is_not_used_where_rounding_does_not_explain_it() -> None:
    """`single` and `double` share a fault of their implementation, which the reference lacks."""
    single = EXACT.astype(np.float32)
    assert not departs(outputs(REFERENCE), outputs(EXACT))
    assert departs(outputs(REFERENCE), outputs(EXACT + 0.5))
    told = beyond_rounding(outputs(REFERENCE), outputs(single + 0.5), outputs(EXACT + 0.5))
    assert told is not None
    assert "logits is off by 0.5" in told
    rounded = (EXACT + 0.1).astype(np.float32)
    assert beyond_rounding(outputs(REFERENCE), outputs(rounded), outputs(EXACT - 0.1)) is None


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_special_values_must_be_the_reference_s(special: float) -> None:
    marked = REFERENCE.copy()
    marked[1, 2] = special
    assert judged(marked, reference=marked).passed
    for got, reference in ((marked, REFERENCE), (REFERENCE, marked)):
        found = judged(got, reference=reference)
        assert not found.passed
        assert "NaN or infinity" in (found.reason or "")
    moved = REFERENCE.copy()
    moved[2, 1] = special
    assert not judged(moved, reference=marked).passed


def test_infinity_where_float32_overflows_is_no_error_of_the_candidate() -> None:
    large = REFERENCE.copy()
    large[0, 0] = np.inf
    found = judged(large, reference=large)
    assert found.passed


def test_whole_numbers_must_be_equal() -> None:
    ids = np.arange(6).reshape(2, 3)
    assert judge(outputs(ids), outputs(ids), outputs(ids), "float32").passed
    assert not judge(outputs(ids + 1), outputs(ids), outputs(ids), "float32").passed


def test_inputs_at_which_rounding_takes_half_of_the_digits_decide_nothing() -> None:
    """The reference is off by 1 % there: what is off by as much may be right, or wrong."""
    exact = np.array([[0.5, 0.25]])
    reference = outputs((exact + 5e-3).astype(np.float32))
    close, near, far = (
        judge(outputs((exact + off).astype(np.float32)), reference, outputs(exact), "float32")
        for off in (1e-5, 1e-2, 0.2)
    )
    assert (close.passed, close.conclusive) == (True, True)
    assert (near.passed, near.conclusive) == (True, False)
    assert "more than half of the digits" in (near.reason or "")
    assert not far.passed
    assert worst([close, near]) is near
    assert worst([close, near, far]) is far


@pytest.mark.parametrize(
    ("got", "told"),
    [
        ({"other": REFERENCE}, "outputs are"),
        ({"logits": REFERENCE[:2]}, "expected float32"),
        ({"logits": REFERENCE.astype(np.float16)}, "float16"),
    ],
)
def test_another_form_is_refused(got: dict[str, np.ndarray], told: str) -> None:
    found = judge(got, outputs(REFERENCE), outputs(EXACT), "float32")
    assert not found.passed
    assert told in (found.reason or "")


def test_the_order_of_the_largest_is_watched() -> None:
    exact = np.array([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0]])
    reference = exact.astype(np.float32)
    swapped = exact[:, [1, 0, 2, 3]].astype(np.float32)
    found = judge(outputs(swapped), outputs(reference), outputs(exact), "float32")
    assert found.order == 0.0
    half = np.concatenate([exact[:1], exact[1:, ::-1]]).astype(np.float32)
    assert judge(outputs(half), outputs(reference), outputs(exact), "float32").order == 0.5


def test_ties_may_change_places() -> None:
    exact = np.array([[1.0, 1.0 + 1e-9, 0.0]])
    got = np.array([[1.0 + 1e-7, 1.0, 0.0]], np.float32)
    found = judge(outputs(got), outputs(exact.astype(np.float32)), outputs(exact), "float32")
    assert found.order == 1.0


def test_without_an_oracle_the_table_decides() -> None:
    assert judge(outputs(REFERENCE), outputs(REFERENCE), None, "float32").passed
    off = judge(outputs(REFERENCE + np.float32(1e-3)), outputs(REFERENCE), None, "float32")
    assert not off.passed
    assert off.reference_error is None


@pytest.mark.parametrize(("off", "passes"), [(5e-5, True), (5e-4, False)])
def test_without_an_oracle_on_these_inputs_the_rounding_on_others_counts(
    off: float, passes: bool
) -> None:
    off *= np.abs(REFERENCE).max()
    told = outputs(REFERENCE + np.float32(off)), outputs(REFERENCE), None, "float32"
    assert not judge(*told).passed
    assert judge(*told, rounding=1e-5).passed is passes


def test_eight_bits_are_held_to_the_table() -> None:
    assert judged(REFERENCE + np.float32(0.02), "int8").passed
    assert not judged(REFERENCE + np.float32(0.2), "int8").passed


def test_a_sum_of_equal_terms_is_off_by_the_order_in_which_it_was_added() -> None:
    """One after the other, and in pairs, as NumPy adds."""
    terms = np.full((1, 20_000), 0.1, np.float32)
    serial = np.cumsum(terms, axis=1, dtype=np.float32)[:, -1:]
    exact = terms.astype(np.float64).sum(axis=1, keepdims=True)
    told = outputs(serial), outputs(terms.sum(axis=1, keepdims=True)), outputs(exact), "float32"
    assert not judge(*told).passed
    assert judge(*told, equal_terms=20_000).passed
    assert not judge(outputs(serial * np.float32(1.01)), *told[1:], equal_terms=20_000).passed


@given(st.floats(0, 1e3), st.floats(1e-6, 1e6), st.sampled_from(["float32", "float16", "bfloat16"]))
def test_the_bound_grows_with_what_it_is_made_of(error: float, scale: float, precision: str):
    bound = bound_of(error, scale, precision)
    assert bound > 0
    assert bound_of(2 * error, scale, precision) >= bound
    assert bound_of(error, 2 * scale, precision) >= bound
    assert bound >= min(error, ROUNDOFF[precision] ** 0.5 * scale)


def test_the_worst_is_the_first_failure_or_the_nearest_to_its_bound() -> None:
    fine, close = judged(REFERENCE), judged((EXACT + 1e-6).astype(np.float32))
    failed = judged(REFERENCE + 1)
    assert worst([fine, close]) is close
    assert worst([close, failed, fine]) is failed


def test_eight_bits_are_held_to_a_part_of_their_range() -> None:
    """A step is as large where values are small; any other precision's bound goes with them."""
    off = outputs(REFERENCE + np.float32(0.1))
    for precision, passes in (("int8", True), ("float16", False)):
        found = judge(off, outputs(REFERENCE), None, precision, ranges={"logits": 20.0})
        assert found.passed is passes
    assert not judge(off, outputs(REFERENCE), None, "int8").passed
    assert not judge(off, outputs(REFERENCE), None, "int8", ranges={"logits": 1.5}).passed


def test_a_graph_in_float64_may_be_off_by_what_the_reference_is() -> None:
    off = np.abs(REFERENCE - EXACT).max()
    assert judge_graph(outputs(EXACT), outputs(REFERENCE), outputs(EXACT)).passed
    least = 4 * ROUNDOFF["float32"]  # of a largest output of 1
    assert off < least
    assert judge_graph(outputs(EXACT + 0.9 * least), outputs(REFERENCE), outputs(EXACT)).passed
    far = judge_graph(outputs(EXACT + 1.1 * least), outputs(REFERENCE), outputs(EXACT))
    assert not far.passed
    assert "logits of the graph in float64 is off by" in str(far.reason)
    rough = REFERENCE + np.float32(0.01)
    assert judge_graph(outputs(EXACT + 0.009), outputs(rough), outputs(EXACT)).passed
    whole = {"classes": np.arange(3)}
    assert judge_graph(whole, whole, whole) is None

"""Comparison of the outputs of two sessions on the same inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from toolkit.core.dtypes import is_floating
from toolkit.core.measurement import Agreement
from toolkit.core.specs import Outputs
from toolkit.parity.tolerances import TOLERANCES, Tolerance

FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


def as_dtype_of(reference: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Return `array` in the reference's dtype if both are floating-point, else unchanged."""
    both = {array.dtype.name, reference.dtype.name} <= FLOATS
    return array.astype(reference.dtype) if both else array


def compare_outputs(
    got: Outputs,
    reference: Outputs,
    tolerance: Tolerance,
    ranges: Mapping[str, float] | None = None,
) -> Agreement:
    """Compare the names, shapes, dtypes and values of outputs with those of the reference.

    NaN and infinity must be the same in the same places. Values that are not floating-point must be
    equal. An output of a dtype that rounds more coarsely has the tolerance of that dtype. For an
    output in `ranges`, the relative tolerance applies to that magnitude if it is larger than the
    reference's.
    """
    if set(got) != set(reference):
        return _refused(f"outputs are {sorted(got)}, expected {sorted(reference)}")
    known = ranges or {}
    return combine(
        [_compare(n, got[n], reference[n], tolerance, known.get(n, 0.0)) for n in reference]
    )


def combine(parts: Sequence[Agreement]) -> Agreement:
    """Return the worst of several comparisons, with the reason of the first that failed."""
    absolutes = [part.max_abs for part in parts if part.max_abs is not None]
    relatives = [part.max_rel for part in parts if part.max_rel is not None]
    return Agreement(
        passed=all(part.passed for part in parts),
        max_abs=max(absolutes, default=None),
        max_rel=max(relatives, default=None),
        reason=next((part.reason for part in parts if not part.passed), None),
        remark=next((part.remark for part in parts if part.remark), None),
    )


def _compare(
    name: str, got: np.ndarray, reference: np.ndarray, tolerance: Tolerance, range_of_it: float
) -> Agreement:
    if got.shape != reference.shape or got.dtype != reference.dtype:
        return _refused(
            f"{name} is {got.dtype}{list(got.shape)}, "
            f"expected {reference.dtype}{list(reference.shape)}"
        )
    if got.size == 0:
        return Agreement(passed=True, max_abs=0.0, max_rel=0.0)
    if not is_floating(reference.dtype):
        return _compare_exactly(name, got, reference)
    tolerance = max(tolerance, TOLERANCES.get(reference.dtype.name, tolerance), key=_width)
    a, b = got.astype(np.float64), reference.astype(np.float64)
    finite = np.isfinite(b)
    if (
        not np.array_equal(a[~finite], b[~finite], equal_nan=True)
        or not np.isfinite(a[finite]).all()
    ):
        return _refused(f"{name} has NaN or infinity where the reference has not, or the reverse")
    difference = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    scale = float(np.abs(b[finite]).max(initial=0.0))
    bound = tolerance.absolute + tolerance.relative * max(scale, range_of_it)
    passed = difference <= bound
    return Agreement(
        passed=passed,
        max_abs=difference,
        max_rel=difference / scale if scale else (None if difference else 0.0),
        reason=None if passed else f"{name} differs by {difference:.3g}, allowed {bound:.3g}",
    )


def _width(tolerance: Tolerance) -> float:
    return tolerance.relative


def _compare_exactly(name: str, got: np.ndarray, reference: np.ndarray) -> Agreement:
    """Compare integers, booleans or strings for equality: a class that is off by one is wrong."""
    wrong = int((got != reference).sum())
    if wrong:
        return _refused(f"{name} differs in {wrong} of {got.size} elements, which must be equal")
    return Agreement(passed=True, max_abs=0.0, max_rel=0.0)


def _refused(reason: str) -> Agreement:
    return Agreement(passed=False, max_abs=None, max_rel=None, reason=reason)

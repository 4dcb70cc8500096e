"""Judgement of outputs by a float64 oracle: a candidate's error compared with the reference's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from toolkit.core.documents import Json
from toolkit.core.dtypes import is_floating
from toolkit.core.specs import Outputs
from toolkit.parity.outputs import combine, compare_outputs
from toolkit.parity.tolerances import MARGINS, ROUNDOFF, TOLERANCES, tolerance_for

TOP = 5
LEAST_ROUNDINGS = 4  # of the largest output; a smaller error of the reference is chance


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Judgement of outputs by their largest distance from the oracle's.

    `error` is the largest absolute error of the candidate, `reference_error` that of the float32
    reference, `scale` the oracle's largest magnitude, and `bound` the largest allowed error.
    `order` is the fraction of samples whose TOP largest scores are in the oracle's order, which
    ignores neighbours that the oracle separates by at most twice the bound. It is None for an
    output without scores of classes. Without an oracle the reference takes its place, and
    `reference_error`, `bound` and `order` are None. `conclusive` is False if a correct output may
    lose more than half of its digits. `passed` then only means that nothing wrong was found, and
    `reason` says so.
    """

    passed: bool
    error: float | None
    reference_error: float | None
    scale: float | None
    bound: float | None
    order: float | None
    reason: str | None = None
    conclusive: bool = True

    @property
    def relative(self) -> float | None:
        """Error divided by the scale; None without either, or for an error at scale 0."""
        if self.error is None or self.scale is None:
            return None
        return self.error / self.scale if self.scale else (0.0 if self.error == 0 else None)

    def to_json(self) -> Json:
        return {**vars(self), "relative": self.relative}

    @classmethod
    def refused(cls, reason: str) -> Self:
        return cls(
            passed=False, error=None, reference_error=None, scale=None, bound=None, order=None,
            reason=reason,
        )  # fmt: skip


def judge(
    got: Outputs,
    reference: Outputs,
    oracle: Outputs | None,
    precision: str,
    *,
    equal_terms: int = 0,
    ranges: Mapping[str, float] | None = None,
    rounding: float | None = None,
) -> Judgement:
    """Judge whether `got` is the output of the model in `precision`.

    The rounding error of a float32 model depends on the model and the inputs; the reference shows
    how large it is. In a floating-point precision of roundoff u, the allowed error is therefore
    MARGINS * u / u32 times the reference's, which counts as at least LEAST_ROUNDINGS roundings of
    the largest output. If all inputs are equal, so are the terms of a sum over positions, and their
    roundings have the same direction. A sum of `equal_terms` terms may then be off by as many
    roundings, depending on the order in which a kernel adds (Higham, 4.2).

    At least half of the digits of the precision must always be right. If float32 rounding alone may
    take more, the computation is ill-conditioned at these inputs. A larger error that rounding
    explains is then neither right nor wrong, and the judgement is not conclusive. NaN and infinity
    must be where the reference has them.

    INT8 outputs are checked against the table of tolerances, since their step is a fraction of the
    range in which a tensor is quantised, whatever its values. For an INT8 reference the bound thus
    depends on `ranges`, the largest magnitude of each of its outputs. The table is also used for
    other precisions without a roundoff, and without an oracle. In the latter case, `rounding` is
    the reference's largest error on other inputs as a fraction of the largest value, and the bound
    is what it explains, if that is more.
    """
    if oracle is None or precision not in ROUNDOFF:
        return _by_table(got, oracle or reference, precision, ranges, rounding)
    if set(got) != set(reference):
        return Judgement.refused(f"outputs are {sorted(got)}, expected {sorted(reference)}")
    judged = [
        _judge(name, got[name], array, oracle[name], _coarser(precision, array), equal_terms)
        for name, array in reference.items()
    ]
    return worst(judged)


def judge_graph(graph: Outputs, reference: Outputs, oracle: Outputs) -> Judgement | None:
    """Judge whether a graph that was evaluated in float64 is the model of the oracle.

    The only roundings of the graph are those of its constants to float32, which the float32
    reference has as well. The graph may therefore be off by the error of the reference, or by
    LEAST_ROUNDINGS roundings of the largest output: a sixteenth of what `judge` allows. Returns
    None without a floating-point output.
    """
    rounding = {name: error for name, error, _ in _errors(reference, oracle)}
    parts = []
    for name, error, scale in _errors(graph, oracle):
        own = rounding.get(name, 0.0)
        bound = max(own, LEAST_ROUNDINGS * ROUNDOFF["float32"] * scale)
        reason = (
            f"{name} of the graph in float64 is off by {error:.3g}, where the float32 reference is "
            f"by {own:.3g}; allowed {bound:.3g}"
        )
        parts.append(
            Judgement(
                passed=error <= bound,
                error=error,
                reference_error=own,
                scale=scale,
                bound=bound,
                order=None,
                reason=None if error <= bound else reason,
            )
        )
    return worst(parts) if parts else None


def _coarser(precision: str, output: np.ndarray) -> str:
    """Return the precision to judge an output in: its dtype, if that rounds more coarsely."""
    own = output.dtype.name
    return own if ROUNDOFF.get(own, 0.0) > ROUNDOFF[precision] else precision


def worst(parts: Sequence[Judgement]) -> Judgement:
    """Return one of the judgements to stand for all.

    It is the first that failed, else the first that is not conclusive, else the one with the
    largest error relative to its bound.
    """
    doubtful = [part for part in parts if not part.passed]
    doubtful += [part for part in parts if not part.conclusive]
    if doubtful:
        return doubtful[0]
    return max(parts, key=lambda part: (part.error or 0.0) / part.bound if part.bound else 0.0)


def _by_table(
    got: Outputs,
    reference: Outputs,
    precision: str,
    ranges: Mapping[str, float] | None,
    rounding: float | None,
) -> Judgement:
    kept = {
        name: array.astype(got[name].dtype) if name in got and array.dtype == np.float64 else array
        for name, array in reference.items()
    }
    counted = ranges if precision == "int8" else None
    tolerance = tolerance_for(precision)
    if rounding is not None and precision in ROUNDOFF:
        # The reference may also be off, in the opposite direction.
        explained = bound_of(rounding, 1.0, precision) + rounding
        allowed = min(explained, cap(1.0, precision))
        tolerance = replace(tolerance, relative=max(tolerance.relative, allowed))
    found = combine([compare_outputs(got, kept, tolerance, counted)])
    scales = [_largest(array) for array in reference.values()]
    return Judgement(
        passed=found.passed,
        error=found.max_abs,
        reference_error=None,
        scale=max(scales, default=0.0),
        bound=None,
        order=None,
        reason=found.reason,
    )


def _judge(
    name: str,
    got: np.ndarray,
    reference: np.ndarray,
    oracle: np.ndarray,
    precision: str,
    equal_terms: int,
) -> Judgement:
    if got.shape != reference.shape or got.dtype != reference.dtype:
        return Judgement.refused(
            f"{name} is {got.dtype}{list(got.shape)}, "
            f"expected {reference.dtype}{list(reference.shape)}"
        )
    if not is_floating(reference.dtype):
        wrong = int((got != reference).sum())
        if wrong:
            return Judgement.refused(
                f"{name} differs in {wrong} of {got.size} elements, which must be equal"
            )
        return Judgement(
            passed=True, error=0.0, reference_error=0.0, scale=0.0, bound=0.0, order=None
        )
    own, exact = got.astype(np.float64), oracle.astype(np.float64)
    finite = np.isfinite(reference)
    same = np.array_equal(got[~finite], reference[~finite], equal_nan=True)
    if not same or not np.isfinite(got[finite]).all():
        return Judgement.refused(
            f"{name} has NaN or infinity where the reference has not, or the reverse"
        )
    finite &= np.isfinite(exact)
    scale = _largest(exact[finite])
    error = _largest(own[finite] - exact[finite])
    own_error = _largest(reference.astype(np.float64)[finite] - exact[finite])
    summed = equal_terms * min(ROUNDOFF[precision], ROUNDOFF["float32"]) * scale
    explained = max(bound_of(own_error, scale, precision), summed)
    bound = min(explained, cap(scale, precision))
    found = Judgement(
        passed=error <= bound,
        error=error,
        reference_error=own_error,
        scale=scale,
        bound=bound,
        order=_order(own, exact, 2 * bound),
    )
    if found.passed:
        return found
    off = f"{name} is off by {error:.3g} where the reference is by {own_error:.3g}"
    if error <= explained and bound_of(own_error, scale, "float32") > cap(scale, "float32"):
        reason = f"{off}: rounding alone takes more than half of the digits at these inputs"
        return replace(found, passed=True, conclusive=False, reason=reason)
    return replace(found, reason=f"{off}; allowed {bound:.3g}")


def bound_of(reference_error: float, scale: float, precision: str) -> float:
    """Return the absolute error that rounding explains: see `judge`."""
    least = LEAST_ROUNDINGS * ROUNDOFF["float32"] * scale
    coarser = ROUNDOFF[precision] / ROUNDOFF["float32"]
    return MARGINS[precision] * coarser * max(reference_error, least)


def cap(scale: float, precision: str) -> float:
    """Return the largest error ever allowed: half of the precision's digits must be right."""
    return math.sqrt(ROUNDOFF[precision]) * scale


def departs(reference: Outputs, double: Outputs) -> bool:
    """Return whether the reference differs from the float64 result beyond the float32 tolerance."""
    table = TOLERANCES["float32"]
    return any(
        error > table.absolute + table.relative * scale
        for _, error, scale in _errors(reference, double)
    )


def beyond_rounding(reference: Outputs, single: Outputs, double: Outputs) -> str | None:
    """Return why the float64 result is not that of the model, or None if it is.

    `single` is the float32 result of the implementation that computed `double`. The reference may
    differ from `double` by MARGINS times the error of `single`, or times LEAST_ROUNDINGS roundings
    of the largest value, whichever is more.
    """
    rounding = {name: error for name, error, _ in _errors(single, double)}
    for name, error, scale in _errors(reference, double):
        least = LEAST_ROUNDINGS * ROUNDOFF["float32"] * scale
        explained = MARGINS["float32"] * max(rounding.get(name, 0.0), least)
        if error > explained:
            return (
                f"its {name} is off by {error:.3g} from the reference, of which rounding explains "
                f"{explained:.3g}"
            )
    return None


def relative_errors(outputs: Outputs, double: Outputs) -> list[float]:
    """Return the largest error of each floating-point output, relative to its magnitude.

    Outputs that are 0 everywhere in `double` are left out.
    """
    return [error / scale for _, error, scale in _errors(outputs, double) if scale]


def _errors(outputs: Outputs, double: Outputs) -> Iterator[tuple[str, float, float]]:
    """Yield name, largest error and largest magnitude of every floating-point output.

    Only elements that are finite in both count; the magnitude is that of `double`.
    """
    for name, exact in double.items():
        got = outputs.get(name)
        if got is not None and got.shape == exact.shape and is_floating(got.dtype):
            both = np.isfinite(got) & np.isfinite(exact)
            difference = got[both].astype(np.float64) - exact[both].astype(np.float64)
            yield name, _largest(difference), _largest(exact[both])


def _order(own: np.ndarray, exact: np.ndarray, apart: float) -> float | None:
    """Return the fraction of samples whose TOP largest scores are in the oracle's order.

    Neighbours that the oracle separates by at most `apart` may swap places. Returns None for an
    output that is not [N, classes], or not finite.
    """
    if exact.ndim != 2 or exact.shape[1] < 2 or not len(exact) or not np.isfinite(exact).all():
        return None
    ranks = np.argsort(-exact, axis=1, kind="stable")[:, : TOP + 1]
    values, mine = (np.take_along_axis(array, ranks, axis=1) for array in (exact, own))
    wrong = (values[:, :-1] - values[:, 1:] > apart) & (mine[:, :-1] <= mine[:, 1:])
    return float((~wrong.any(axis=1)).mean())


def _largest(array: np.ndarray) -> float:
    finite = array[np.isfinite(array)] if is_floating(array.dtype) else array
    return float(np.abs(finite.astype(np.float64)).max(initial=0.0))

"""Checks of a row: right outputs, in the requested precision, on the requested device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

from toolkit.core.artifact import Artifact
from toolkit.core.errors import ToolkitError
from toolkit.core.measurement import Agreement, Row, Status
from toolkit.core.specs import Feeds, Outputs
from toolkit.exporting.float64_oracle import Expected, expected_of
from toolkit.parity.judging import judge, worst
from toolkit.parity.outputs import combine, compare_outputs
from toolkit.parity.tolerances import ROUNDOFF, TOLERANCES, Tolerance, tolerance_for


@final
@dataclass(kw_only=True)
class ReferenceOutputs:
    """Outputs of the reference for each of `feeds`, and of the float64 oracle when it is needed.

    `forms` are the variants of the model from which both are chosen. With `tolerance`, outputs may
    differ by that fraction of the largest magnitude, and the oracle is not used.
    """

    forms: Sequence[Artifact]
    feeds: Sequence[Feeds]
    outputs: Sequence[Outputs]
    tolerance: float | None = None

    def agreement(
        self, run: Callable[[Feeds, int], Outputs], precision: str, sessions: int = 1
    ) -> Agreement:
        """Compare the outputs of `run` with the reference's, by the bounds of `precision`.

        The first session runs on every set of feeds, each further session on one set. Outputs
        beyond the table of tolerances are judged by the oracle, as in an export: rounding alone may
        take more digits of a deep model than the table allows.
        """
        asked = [(0, number) for number in range(len(self.feeds))]
        asked += [(session, session % len(self.feeds)) for session in range(1, sessions)]
        got = [(number, run(self.feeds[number], session)) for session, number in asked]
        tolerance = self._tolerance(precision)
        found = combine([compare_outputs(one, self.outputs[k], tolerance) for k, one in got])
        if found.passed or self.tolerance is not None or precision not in ROUNDOFF:
            return found
        expected = self._expected
        if expected is None or expected.oracle is None:
            return found
        again = zip(expected.outputs[0], self.outputs, strict=False)
        if not all(compare_outputs(*pair, tolerance).passed for pair in again):
            return found  # the reference differs between runs: the model draws random numbers
        exact = expected.exact[0]
        judged = [
            judge(one, self.outputs[k], double, precision)
            for k, one in got
            if (double := exact[k]) is not None
        ]
        if len(judged) < len(got):
            return found
        judgement = worst(judged)
        if not judgement.passed:
            return replace(found, reason=f"{judgement.reason}; judged by {expected.oracle}")
        how = judgement.reason or (
            f"off by {judgement.error:.3g}, the reference by {judgement.reference_error:.3g}, "
            f"allowed {judgement.bound:.3g}"
        )
        return replace(
            found, passed=True, reason=None, remark=f"judged by {expected.oracle}: {how}"
        )

    def _tolerance(self, precision: str) -> Tolerance:
        known = tolerance_for(precision)
        if self.tolerance is None:
            return known
        return replace(known, relative=self.tolerance, absolute=0.0, why="--tolerance")

    @cached_property
    def _expected(self) -> Expected | None:
        """Outputs of a new reference run and of the oracle; None if the reference cannot run."""
        try:
            return expected_of(self.forms, [self.feeds])
        except ToolkitError:
            return None


def fallback_of(row: Row) -> str | None:
    """Return a sentence on a precision or device that ran instead of the requested one, else None.

    "mixed" is not a fallback from "int8", since an INT8 model has layers in floating point.
    """
    if row.provenance is None or not row.computes:
        return None
    asked, ran = row.precision_requested, row.provenance.precision
    parts = []
    if ran not in ("none", asked) and (asked, ran) != ("int8", "mixed"):
        parts.append(f"Asked for {asked}, ran in {ran}.")
    if row.provenance.device not in ("none", row.device):
        parts.append(f"Asked for the {row.device}, ran on {row.provenance.device}.")
    return " ".join(parts) or None


def bounds_for(row: Row) -> str:
    """Return the precision whose bounds apply to a row that was allowed to fall back.

    It is the coarser of the precision that ran and the requested one, in which the reference ran.
    """
    ran = row.provenance.precision if row.provenance else row.precision_requested
    known = [name for name in (row.precision_requested, ran) if name in TOLERANCES]
    return max(known, key=lambda name: TOLERANCES[name].relative)


def judged(row: Row, *, reference: str, fallback: str | None = None) -> Row:
    """Return the row with its status: failed if its outputs are wrong or if it fell back."""
    reasons = []
    if row.parity is not None and not row.parity.passed:
        reasons.append(f"Parity with {reference}: {row.parity.reason}.")
    if fallback is not None:
        reasons.append(f"{fallback} Give --allow-fallback to accept that.")
    status = Status.FAILED if reasons else Status.OK
    return replace(row, status=status, reason=" ".join(reasons) or None)

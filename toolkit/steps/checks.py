"""Whether a row did what it was asked to: the right outputs, in that precision, on that device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from toolkit.core.measurement import Agreement, Row, Status
from toolkit.core.specs import Feeds, Outputs
from toolkit.parity.outputs import combine, compare_outputs
from toolkit.parity.tolerances import TOLERANCES, tolerance_for


def agreement(
    run: Callable[[Feeds, int], Outputs],
    feeds: Sequence[Feeds],
    expected: Sequence[Outputs],
    precision: str,
    sessions: int = 1,
) -> Agreement:
    """How far the outputs are from those expected, by the bounds of `precision`.

    The first session is asked for those of every set, each further one for those of one set.
    """
    tolerance = tolerance_for(precision)
    asked = [(0, number) for number in range(len(feeds))]
    asked += [(session, session % len(feeds)) for session in range(1, sessions)]
    return combine(
        [
            compare_outputs(run(feeds[number], session), expected[number], tolerance)
            for session, number in asked
        ]
    )


def fallback_of(row: Row) -> str | None:
    """What ran instead of the precision or device that was asked for; None where they ran.

    A model of eight bits has layers in floating point, so "mixed" is what it asks for too.
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
    """The precision whose bounds hold for a row that was allowed to fall back: the coarser of
    what it ran in and what it was asked for, in which the reference ran."""
    ran = row.provenance.precision if row.provenance else row.precision_requested
    known = [name for name in (row.precision_requested, ran) if name in TOLERANCES]
    return max(known, key=lambda name: TOLERANCES[name].relative)


def judged(row: Row, *, reference: str, fallback: str | None = None) -> Row:
    """The row, failed where its outputs are not the reference's or where it fell back."""
    reasons = []
    if row.parity is not None and not row.parity.passed:
        reasons.append(f"Parity with {reference}: {row.parity.reason}.")
    if fallback is not None:
        reasons.append(f"{fallback} Give --allow-fallback to accept that.")
    status = Status.FAILED if reasons else Status.OK
    return replace(row, status=status, reason=" ".join(reasons) or None)

"""Whether a row gives the answers that it was asked for, in the precision that it was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from toolkit.core.measurement import Agreement, Row, Status
from toolkit.core.specs import Feeds, Outputs
from toolkit.measuring.client import WorkerProcess
from toolkit.parity.outputs import combine, compare_outputs
from toolkit.parity.tolerances import tolerance_for


def parity_of(
    row: Row,
    worker: WorkerProcess,
    feeds: Sequence[Feeds],
    expected: Sequence[Outputs] | None,
    sessions: int,
) -> Agreement | None:
    """The worker's outputs against the reference's; None where there are none of the reference.

    The first session is asked for those of every set, each further one for those of one set, all
    others being at work on the same at the same time.
    """
    if expected is None:
        return None
    asked = [(0, number) for number in range(len(feeds))]
    asked += [(session, session % len(feeds)) for session in range(1, sessions)]
    tolerance = tolerance_for(row.precision_requested)
    return combine(
        [
            compare_outputs(worker.run(feeds[number], session), expected[number], tolerance)
            for session, number in asked
        ]
    )


def checked(row: Row, parity: Agreement | None, reference: str) -> Row:
    """The row with its parity; failed where that or the precision is not what was asked for."""
    reasons = []
    if parity is not None and not parity.passed:
        reasons.append(f"Parity with {reference}: {parity.reason}.")
    ran = row.provenance.precision if row.provenance else "none"
    if ran not in ("none", row.precision_requested):
        reasons.append(f"Asked for {row.precision_requested}, ran in {ran}.")
    row = replace(row, parity=parity)
    return replace(row, status=Status.FAILED, reason=" ".join(reasons)) if reasons else row

"""What a cell came to, written beside what it gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from toolkit.core.documents import seal, write_document
from toolkit.core.files import move_whole, wrapping_os_errors
from toolkit.measuring.environment import describe_environment, machine_of
from toolkit.study.job import Job
from toolkit.study.store import CELL_FILE, CELL_SCHEMA, Outcome, State


def outcome_of(
    job: Job,
    state: State,
    started: datetime,
    *,
    reason: str | None = None,
    output: Mapping[str, str] | None = None,
    warnings: Sequence[str] = (),
) -> Outcome:
    """The outcome of a cell that ends now, on this machine."""
    return Outcome(
        id=job.id,
        step=job.step,
        dimensions=job.dimensions,
        parents=[ground.id for ground in job.grounds],
        state=state,
        reason=reason,
        started=started.isoformat(timespec="seconds"),
        seconds=(datetime.now(UTC) - started).total_seconds(),
        machine=machine_of(describe_environment()),
        output=output or {},
        warnings=warnings,
    )


def finish(job: Job, outcome: Outcome) -> None:
    """Writes `cell.json`, and moves the cell to its place."""
    write_document(job.partial / CELL_FILE, seal(CELL_SCHEMA, vars(outcome)))
    with wrapping_os_errors(f"create {job.place}"):
        move_whole(job.partial, job.place)

"""Creation of the outcome of a cell, and its storage with the output of the cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from toolkit.core.documents import seal, write_document
from toolkit.core.files import move_whole, wrapping_os_errors
from toolkit.measuring.machine.environment import describe_environment, machine_of
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
    """Return the outcome of a cell that ran on this machine from `started` to now."""
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
    """Write `cell.json`, and move the directory of the cell to its final place.

    Raises ToolkitError on failure.
    """
    write_document(job.partial / CELL_FILE, seal(CELL_SCHEMA, vars(outcome)))
    with wrapping_os_errors(f"create {job.place}"):
        move_whole(job.partial, job.place)

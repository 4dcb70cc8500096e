"""Rows that are kept, whatever breaks off the measuring of them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from toolkit.core.documents import Json
from toolkit.core.interrupts import Interrupts
from toolkit.core.measurement import Result, Row
from toolkit.core.progress import Progress
from toolkit.results import store


def keep_rows(
    measure_all: Callable[[list[Row]], None],
    *,
    plan: Json,
    environment: Json,
    warnings: Callable[[Sequence[Row]], Sequence[str]],
    interrupts: Interrupts,
    out: Path,
    progress: Progress,
) -> Result:
    """Lets `measure_all` add to a list of rows, and stores the result as `out/<id>.json`.

    `warnings` is asked afterwards. What breaks it off, Ctrl-C or an error, is raised when what
    there was until then is stored; `interrupts` that were held meanwhile are let go of.
    """
    store.prepare(out)
    created = datetime.now(UTC)
    rows: list[Row] = []
    broken_off: BaseException | None = None
    try:
        measure_all(rows)
    except (KeyboardInterrupt, Exception) as error:
        broken_off = error
    result = Result(
        id=f"{created:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
        created=created.isoformat(timespec="seconds"),
        plan=plan,
        rows=tuple(rows),
        environment=environment,
        warnings=(*_interruption(broken_off), *warnings(rows)),
    )
    try:
        if rows:
            path = store.save(out, result)
            if broken_off is not None:
                progress.note(f"Interrupted; what was measured until then lies in {path}")
    finally:
        interrupts.release()
    if broken_off is not None:
        raise broken_off
    return result


def _interruption(error: BaseException | None) -> list[str]:
    if error is None:
        return []
    how = "Ctrl-C" if isinstance(error, KeyboardInterrupt) else type(error).__name__
    return [f"Interrupted by {how}: the rows are what was measured until then."]

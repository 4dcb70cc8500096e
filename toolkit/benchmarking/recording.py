"""Store measured rows even if the measurement is interrupted or the disk is full."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from toolkit.core.documents import Json
from toolkit.core.errors import StorageError, ToolkitError
from toolkit.core.files import NewFile
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
    expected_bytes: int,
    progress: Progress,
) -> Result:
    """Let `measure_all` append to a list of rows, and store the result as `out/<id>.json`.

    Space for `expected_bytes` is reserved first, and `warnings` is called with the rows at the end.
    If Ctrl-C or an error interrupts `measure_all`, the exception is raised again after the rows
    measured so far are stored; a result without rows is not stored. `interrupts` are released at
    the end. Raises StorageError, with the result, if `out` cannot be written at the end; the result
    is then in the temporary directory if there is room.
    """
    created = datetime.now(UTC)
    id = f"{created:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    with store.reserve(out, id, expected_bytes) as file:
        rows: list[Row] = []
        broken_off: BaseException | None = None
        try:
            measure_all(rows)
        except (KeyboardInterrupt, Exception) as error:
            broken_off = error
        result = Result(
            id=id,
            created=created.isoformat(timespec="seconds"),
            plan=plan,
            rows=tuple(rows),
            environment=environment,
            warnings=(*_interruption(broken_off), *warnings(rows)),
        )
        try:
            if rows:
                _store(file, result, out)
                if broken_off is not None:
                    path = out / f"{id}.json"
                    progress.note(f"Interrupted; what was measured until then is in {path}")
        finally:
            interrupts.release()
    if broken_off is not None:
        raise broken_off
    return result


def _store(file: NewFile, result: Result, out: Path) -> None:
    try:
        file.write(store.encode(result))
    except ToolkitError as error:
        raise _stored_elsewhere(result, out, error.problem) from error


def _stored_elsewhere(result: Result, out: Path, why: str) -> StorageError:
    """Store the result in the temporary directory, and return the StorageError to raise."""
    try:
        path = store.save_elsewhere(result)
    except ToolkitError as error:
        return StorageError(
            f"{why} {error.problem} The result is not stored.",
            hint=f"Make room in {out}, and measure again; or set TMPDIR to a place with room.",
            result=result,
        )
    return StorageError(
        f"{why} The result is in {path} instead.",
        hint=f"Make room in {out}, and move the file there.",
        result=result,
        path=path,
    )


def _interruption(error: BaseException | None) -> list[str]:
    if error is None:
        return []
    how = "Ctrl-C" if isinstance(error, KeyboardInterrupt) else type(error).__name__
    return [f"Interrupted by {how}: the rows are what was measured until then."]

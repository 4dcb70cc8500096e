"""Find, list and show stored results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from toolkit.core.documents import Json
from toolkit.core.errors import UsageError, unknown_name
from toolkit.core.measurement import Result
from toolkit.measuring.figures.summary import result_figures
from toolkit.results import store


@dataclass(frozen=True, kw_only=True)
class ShownResult:
    """A stored result, and its figures with the requested percentiles."""

    path: Path
    result: Result
    figures: Json


def show_result(
    name: str, *, directory: Path = Path("results"), percentiles: tuple[float, ...] | None = None
) -> ShownResult:
    """Load a result by its id, the beginning of its id, or its path; nothing is measured again.

    Raises UnknownNameError, SourceError, IntegrityError; UsageError for a percentile that is not
    between 0 and 100 (both excluded), and for a beginning that several ids share.
    """
    for q in percentiles or ():
        if not 0 < q < 100:
            raise UsageError(
                f"Got percentile {q:g}, expected one between 0 and 100.", hint="Give, say, 99.9."
            )
    path = find_result(name, directory)
    result = store.load(path)
    return ShownResult(path=path, result=result, figures=result_figures(result, percentiles))


def list_results(
    *, directory: Path = Path("results"), warn: Callable[[str], None]
) -> list[tuple[Path, Result]]:
    """Return all readable results of a directory, the oldest first.

    `warn` is called with a sentence for each file that cannot be read.
    """
    return store.load_readable(store.paths(directory), warn)


def find_result(name: str, directory: Path) -> Path:
    """Return the file of a result, given its id, the beginning of its id, or its path.

    Raises UnknownNameError, and UsageError for a beginning that several ids share. A path is not
    checked.
    """
    if name.endswith(".json"):
        return Path(name)
    ids = {path.stem: path for path in store.paths(directory)}
    found = [path for known, path in ids.items() if known.startswith(name)]
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} results of {directory} begin with {name!r}.",
            hint=f"Give more of the id: {', '.join(path.stem for path in found)}.",
        )
    if not found:
        raise unknown_name(f"result in {directory}/", name, ids)
    return found[0]

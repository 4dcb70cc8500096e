"""Reading of the results, studies and checkpoints of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.core.artifact import MANIFEST, Checkpoint
from toolkit.core.errors import SourceError
from toolkit.core.measurement import Result
from toolkit.measuring.figures.records import Record, row_records
from toolkit.results import store
from toolkit.results.find import find_result
from toolkit.study.document import RECORD_KINDS
from toolkit.study.records import records_of, training_records
from toolkit.study.store import Outcome, StoredStudy, is_study


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Content of all sources of a report.

    `studies` are as in their `study.json`. `kinds` are the records by kind. `outcomes` are those of
    all cells, and `missing` is the number of cells that have not run. `unreadable` has a sentence
    for each file that was left out.
    """

    studies: Sequence[StoredStudy]
    results: Sequence[Result]
    kinds: Mapping[str, Sequence[Record]]
    outcomes: Sequence[Outcome]
    missing: int
    unreadable: Sequence[str] = ()


def gather(sources: Sequence[Path]) -> Gathered:
    """Read the sources of a report.

    A source is a result file, a directory of them, the directory of a study or checkpoint, or the
    id of a result in `results/`. A result file that cannot be read is left out, with a sentence in
    `unreadable`. Raises SourceError for a directory without results or if nothing can be read,
    UnknownNameError or UsageError for an id that is unknown or ambiguous, and IntegrityError for a
    study or checkpoint that was altered.
    """
    studies: list[StoredStudy] = []
    results: list[Result] = []
    kinds: dict[str, list[Record]] = {kind: [] for kind in RECORD_KINDS}
    outcomes: list[Outcome] = []
    missing = 0
    unreadable: list[str] = []
    for source in sources:
        if is_study(source):
            found = records_of(source)
            studies.append(found.study)
            results += found.results
            outcomes += found.outcomes
            missing += found.missing
            unreadable += found.unreadable
            for kind, records in found.kinds.items():
                kinds[kind] += records
        elif (source / MANIFEST).is_file():
            checkpoint = Checkpoint.load(source)
            trained, epochs = training_records(checkpoint)
            own = {"model": checkpoint.spec.name, "data": checkpoint.spec.data}
            kinds["trainings"].append({**own, **trained})
            kinds["epochs"] += [{**own, "cell": str(source), **epoch} for epoch in epochs]
        else:
            for _, result in store.load_readable(_paths(source), unreadable.append):
                results.append(result)
                kind = "training_rows" if "training" in result.plan else "rows"
                kinds[kind] += [_named(record, kind) for record in row_records(result)]
    if unreadable and not (studies or any(kinds.values())):
        raise SourceError(" ".join(unreadable), hint="Nothing is left to report: measure it again.")
    return Gathered(
        studies=studies,
        results=results,
        kinds=kinds,
        outcomes=outcomes,
        missing=missing,
        unreadable=unreadable,
    )


def _named(record: Record, kind: str) -> Record:
    path = Path(record["artifact"])
    model = path.parent.name if path.suffix or path.name == MANIFEST else path.name
    own = {"trainer": record["runtime"]} if kind == "training_rows" else {}
    return {"model": model or str(path), **record, **own}


def _paths(source: Path) -> list[Path]:
    if source.is_dir():
        found = store.paths(source)
        if not found:
            raise SourceError(
                f"{source} holds no results, and is no study.",
                hint="Give a file or directory of results, the directory of a study, or of a "
                "checkpoint.",
            )
        return found
    if source.suffix == ".json":
        return [source]
    return [find_result(str(source), Path("results"))]

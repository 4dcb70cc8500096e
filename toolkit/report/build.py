"""Content of a report, built from the gathered results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toolkit.core.codec import encode
from toolkit.core.measurement import Result
from toolkit.measuring.machine.environment import machine_of
from toolkit.report import charts, tables
from toolkit.report.content import Chart, Column, Content, Grid
from toolkit.report.gather import Gathered

MIXED = (
    "Results of {count} machines are in this report: times are compared only within a "
    "measurement, all of whose rows are of one machine."
)


def build(gathered: Gathered, created: str) -> Content:
    """Return the content of a report; `created` is the time that it shows."""
    studies = gathered.studies
    grids: list[Grid] = []
    shown: list[Chart] = []
    for study in studies:
        for table in study.tables:
            grids.append(tables.of_study(table, gathered.kinds[table.of]))
        for plot in study.plots:
            chart = charts.of_study(plot, gathered.kinds[plot.of], study.tables)
            shown += [chart] if chart is not None else []
    grids += tables.general(gathered.kinds)
    shown += charts.general(gathered.kinds, gathered.results)
    if ran := _what_ran(gathered.results):
        grids.append(ran)
    if cells := _cells(gathered):
        grids.append(cells)
    return Content(
        title=" and ".join(study.title for study in studies) or _title(gathered),
        about="\n\n".join(study.about for study in studies if study.about),
        created=created,
        warnings=list(_warnings(gathered)),
        grids=grids,
        charts=shown,
        limits=[limit for study in studies for limit in study.limits],
        facts=_facts(gathered.results),
        records=gathered.kinds,
    )


def _title(gathered: Gathered) -> str:
    kinds = [kind for kind in ("rows", "training_rows", "trainings") if gathered.kinds.get(kind)]
    models = dict.fromkeys(str(one.get("model")) for kind in kinds for one in gathered.kinds[kind])
    named = ", ".join(list(models)[:3])
    return f"{named}{' and others' if len(models) > 3 else ''}: what was measured"


def _warnings(gathered: Gathered) -> Iterator[str]:
    """Yield warnings for the top of a report: replaced data, failures, doubtful measurements."""
    for study in gathered.studies:
        if study.stands_in:
            yield (
                f"{study.stands_in}: figures of accuracy, and times of training, are not those "
                "of the data that the reference was measured on."
            )
        if study.quick:
            yield "The quick form of the study: fewer epochs, sizes and repetitions."
    yield from gathered.unreadable
    states = Counter(str(one.state) for one in gathered.outcomes)
    failed = [f"{states[name]} {name}" for name in ("failed", "skipped") if states[name]]
    if failed or gathered.missing:
        todo = [f"{gathered.missing} not run yet"] if gathered.missing else []
        yield f"Of the cells of the study: {', '.join([*failed, *todo])}; the last table says why."
    machines = {str(one["machine"]) for one in _facts(gathered.results)}
    if len(machines) > 1:
        yield MIXED.format(count=len(machines))
    counts = Counter(_named_warnings(gathered))
    for warning, count in counts.most_common():
        yield f"{warning}{f' ({count} times)' if count > 1 else ''}"


def _named_warnings(gathered: Gathered) -> Iterator[str]:
    """Yield the warnings of the results, with the model's name if the report has several."""
    models = {
        str(row["result"]): str(row["model"])
        for kind in ("rows", "training_rows")
        for row in gathered.kinds.get(kind, ())
        if row.get("model")
    }
    several = len(set(models.values())) > 1
    for result in gathered.results:
        model = models.get(result.id) if several else None
        yield from (f"{model}: {text}" if model else text for text in result.warnings)


def _facts(results: Sequence[Result]) -> list[Mapping[str, Any]]:
    """Return the distinct environments of the results."""
    found: dict[str, Mapping[str, Any]] = {}
    for result in results:
        environment = result.environment
        facts = {
            "machine": machine_of(environment),
            "memory, GiB": round(environment["memory_bytes"] / 2**30, 1),
            "platform": environment["platform"],
            "Python": environment["python"],
            "commit": environment["commit"] or "unknown",
            "vector instructions": " ".join(environment["cpu"]["flags"]),
            "variables": _brief(environment["variables"]) or "none",
            **environment["versions"],
        }
        found.setdefault(str(facts), facts)
    return list(found.values())


def _what_ran(results: Sequence[Result]) -> Grid | None:
    """Return a table of the provenance that each row's runtime reported, None without any."""
    rows = []
    for result in results:
        for row in result.rows:
            if row.provenance is None:
                continue
            told = {k: v for k, v in encode(row.provenance).items() if v not in (None, {}, [])}
            version, precision = told.pop("version", None), told.pop("precision", None)
            rest = "; ".join(f"{name}: {_brief(value)}" for name, value in told.items())
            rows.append(
                [result.id[-8:], row.runtime, row.batch, version, row.artifact_digest[7:19],
                 precision, rest]
            )  # fmt: skip
    if not rows:
        return None
    names = ("result", "runtime", "batch", "version", "artifact", "precision", "as it told")
    return Grid(
        title="What really ran",
        columns=[Column(name=name, label=name, numeric=name == "batch") for name in names],
        rows=rows,
        note="`artifact` is the beginning of the digest of what was opened.",
        section="provenance",
    )


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        value = ", ".join(f"{name} {one}" for name, one in value.items())
    text = str(value)
    return text if len(text) <= 240 else f"{text[:237]}..."


def _cells(gathered: Gathered) -> Grid | None:
    if not gathered.outcomes:
        return None
    names = ("cell", "state", "took, s", "machine", "reason")
    return Grid(
        title="Cells of the study",
        columns=[Column(name=name, label=name, numeric=name == "took, s") for name in names],
        rows=[
            [one.id, str(one.state), round(one.seconds, 1), one.machine, one.reason]
            for one in gathered.outcomes
        ],
        section="provenance",
    )

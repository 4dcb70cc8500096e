"""Studies as defined in TOML files, and the reader of these files."""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self, get_args

from toolkit.core.documents import Json
from toolkit.core.errors import SourceError, UsageError, unknown_name
from toolkit.study.keys import OF_SECTIONS, check_keys, check_required, check_step
from toolkit.study.values import (
    FLAG,
    FLAG_OR_TABLE,
    RULE,
    SCALARS,
    TABLES,
    TEXT,
    TEXTS,
    Type,
    check_values,
    shown,
    too_deep,
)

SUFFIX = ".toml"
RecordKind = Literal["trainings", "epochs", "rows", "training_rows", "accuracy"]
PlotKind = Literal["line", "bar", "point"]
RECORD_KINDS: tuple[RecordKind, ...] = get_args(RecordKind)
PLOT_KINDS: tuple[PlotKind, ...] = get_args(PlotKind)
OWN = ("train", "bench-training")  # sections that have data


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of a study: a step with its values, from which cells are made.

    A list gives a cell for each item, see toolkit.study.keys.Key. `where` selects the trainings, or
    for a calibration the exports, that cells are made for. Each cell is made `repetitions`
    times.
    """

    step: str
    values: Mapping[str, Any]
    where: Mapping[str, Any]
    repetitions: int


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the report, made from the records of kind `of` that match `where`.

    It has a row for each combination of the dimensions `rows`, and a column for each of `metrics`.
    With `across`, it has instead a column for each value in `at` of the dimension `across`, with
    the only metric. `reference` has rows of an earlier study, which are shown next to those of this
    study. Their keys are the names of dimensions and metrics; with `across`, the keys of metric
    values are the values in `at`.
    """

    title: str
    of: RecordKind
    rows: tuple[str, ...]
    metrics: tuple[str, ...]
    where: Mapping[str, Any]
    across: str | None = None
    at: tuple[Any, ...] = ()
    reference: tuple[Mapping[str, Any], ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot of the report: `y` against `x`, with a series for each combination of `by`.

    It is made from the records of kind `of` that match `where`. `reference` is the title of a
    table whose reference is plotted as well.
    """

    title: str
    of: RecordKind
    x: str
    y: str
    where: Mapping[str, Any]
    by: tuple[str, ...] = ()
    kind: PlotKind = "line"
    log_x: bool = False
    log_y: bool = False
    reference: str | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study: its sections, which define the cells, and the tables and plots of its report.

    `limits` are sentences on what an earlier, repeated study could not separate, and how this study
    does. `stands_in` says which data were replaced by others, None if there were none.
    """

    name: str
    title: str
    about: str
    sections: tuple[Section, ...]
    exclude: tuple[Mapping[str, Any], ...]
    tables: tuple[Table, ...]
    plots: tuple[Plot, ...]
    limits: tuple[str, ...]
    quick: bool
    stands_in: str | None

    def description(self) -> Json:
        """Return the part of the study that a report needs."""
        return {
            "name": self.name,
            "title": self.title,
            "about": self.about,
            "tables": self.tables,
            "plots": self.plots,
            "limits": self.limits,
            "quick": self.quick,
            "stands_in": self.stands_in,
        }

    @classmethod
    def read(cls, name: str, *, data: str | None = None, quick: bool = False) -> Self:
        """Read a study from a TOML file, or a built-in study by name.

        `data` replaces the data of every section that has some, and drops its `data_settings`. With
        `quick`, the values in `quick` of a section, table or plot replace its own, a section with
        `quick = false` is left out, and an exclusion with `quick = true` applies. Raises
        SourceError for a file that cannot be read or has values that JSON cannot store,
        UnknownNameError for an unknown study, section, key, kind of record or plot, or table that a
        plot refers to, and UsageError for other invalid content.
        """
        text, stem = _text(name)
        try:
            given = tomllib.loads(text)
        except ValueError as error:
            raise SourceError(
                f"Could not read {name} as TOML: {error}.", hint="Correct that line."
            ) from error
        except RecursionError:
            raise too_deep(name) from None
        check_values(given, name)
        return cls(**_Reader(given, stem, data, quick).parts())


def built_in() -> list[str]:
    """Return the names of the built-in studies."""
    found = resources.files("toolkit.study").joinpath("studies").iterdir()
    return sorted(one.name.removesuffix(SUFFIX) for one in found if one.name.endswith(SUFFIX))


def text_of(name: str) -> str:
    """Return the TOML text of a study, unchecked.

    Raises SourceError for a file that cannot be read, UnknownNameError for an unknown study.
    """
    return _text(name)[0]


def _text(name: str) -> tuple[str, str]:
    path = Path(name)
    if path.suffix == SUFFIX or path.is_file():
        try:
            return path.read_text(encoding="utf-8"), path.stem
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(
                f"Could not read the study {name}: {error}.", hint="Check the path."
            ) from error
    known = built_in()
    if name not in known:
        raise unknown_name("study", name, known)
    place = resources.files("toolkit.study").joinpath("studies", f"{name}{SUFFIX}")
    return place.read_text(encoding="utf-8"), name


TOP: Mapping[str, Type] = {
    "title": TEXT,
    "about": TEXT,
    "limits": TEXTS,
    "exclude": TABLES,
    "table": TABLES,
    "plot": TABLES,
}
"""Top-level keys of a study's file that are not sections."""

_SHOWN: Mapping[str, Type] = {
    "title": TEXT,
    "of": TEXT,
    "where": RULE,
    "reference": TEXT,
    "note": TEXT,
}
KEYS: Mapping[type, Mapping[str, Type]] = {
    Table: {
        **_SHOWN,
        "rows": TEXTS,
        "metrics": TEXTS,
        "across": TEXT,
        "at": SCALARS,
        "quick": FLAG_OR_TABLE,
    },
    Plot: {
        **_SHOWN,
        "x": TEXT,
        "y": TEXT,
        "by": TEXTS,
        "kind": TEXT,
        "log_x": FLAG,
        "log_y": FLAG,
        "quick": FLAG_OR_TABLE,
    },
}
"""Keys of [[table]] and [[plot]]."""


class _Reader:
    """Reader of one document, whose errors name the place in it."""

    def __init__(self, given: Mapping[str, Any], stem: str, data: str | None, quick: bool) -> None:
        self._given, self._stem, self._data, self._quick = given, stem, data, quick
        self._replaced: dict[str, None] = {}

    def parts(self) -> dict[str, Any]:
        for name, type in TOP.items():
            if name in self._given:
                type.check(name, self._given[name])
        sections = [
            section
            for name, found in self._given.items()
            if name not in TOP
            for section in self._sections(name, found)
        ]
        if not sections:
            raise UsageError(
                f"The study {self._stem} has no section that does anything.",
                hint="Add [[train]] or [[bench-training]], as docs/studies.md shows.",
            )
        tables = [self._table(one) for one in self._list("table")]
        return {
            "name": self._stem,
            "title": self._given.get("title", self._stem),
            "about": self._given.get("about", "").strip(),
            "sections": tuple(sections),
            "exclude": tuple(self._excluded()),
            "tables": tuple(tables),
            "plots": tuple(self._plot(one, tables) for one in self._list("plot")),
            "limits": tuple(self._given.get("limits", [])),
            "quick": self._quick,
            "stands_in": self._stand_in(),
        }

    def _stand_in(self) -> str | None:
        others = [name for name in self._replaced if name != self._data]
        return f"{self._data} in place of {' and '.join(others)}" if others else None

    def _list(self, name: str) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = self._given.get(name, [])
        return found

    def _sections(self, step: str, found: Any) -> list[Section]:
        check_step(step)
        TABLES.check(step, found)
        sections = []
        for given in found:
            check_keys(step, given)
            quick = given.get("quick", {})
            if self._quick and quick is False:
                continue
            values = dict(given)
            if self._quick and isinstance(quick, dict):
                values = _over(values, quick)
                check_keys(step, values)
            if self._data is not None and step in OWN:
                self._replace_data(values)
            check_required(step, values)
            sections.append(
                Section(
                    step=step,
                    values={k: v for k, v in values.items() if k not in OF_SECTIONS},
                    where=values.get("where", {}),
                    repetitions=values.get("repetitions", 1),
                )
            )
        return sections

    def _replace_data(self, values: dict[str, Any]) -> None:
        before = values.get("data", [])
        self._replaced |= dict.fromkeys(before if isinstance(before, list) else [before])
        values["data"] = self._data
        values.pop("data_settings", None)

    def _excluded(self) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        for given in self._list("exclude"):
            quick = given.get("quick", False)
            FLAG.check("quick", quick)
            RULE.check("exclude", given)
            if self._quick or not quick:
                found.append({key: value for key, value in given.items() if key != "quick"})
        return found

    def _table(self, given: Mapping[str, Any]) -> Table:
        values = self._shown(Table, given)
        found = Table(**values | {"reference": lines_of(values.get("reference", ""))})
        _check_records(found.title, found.of)
        if found.across and len(found.metrics) != 1:
            raise UsageError(
                f"[[table]] {shown(found.title)} has across and {len(found.metrics)} metrics, "
                "expected one.",
                hint="Give one metric, or leave across and at out.",
            )
        return found

    def _plot(self, given: Mapping[str, Any], tables: Sequence[Table]) -> Plot:
        found = Plot(**self._shown(Plot, given))
        _check_records(found.title, found.of)
        if found.kind not in PLOT_KINDS:
            raise unknown_name(f"kind of plot ({found.title})", found.kind, PLOT_KINDS)
        titles = [table.title for table in tables]
        if found.reference is not None and found.reference not in titles:
            raise unknown_name(f"table (for the plot {found.title})", found.reference, titles)
        return found

    def _shown(self, kind: type[Table | Plot], given: Mapping[str, Any]) -> dict[str, Any]:
        """Check the values of a table or plot, and return them with lists as tuples.

        Raises UnknownNameError for an unknown key, UsageError for a value of a wrong type or a
        missing key.
        """
        quick = given.get("quick")
        values: dict[str, Any] = {"where": {}}
        for part in (given, quick if self._quick and isinstance(quick, dict) else {}):
            _check_shown(kind, part)
            values |= {k: tuple(v) if isinstance(v, list) else v for k, v in part.items()}
        values.pop("quick", None)
        missing = [
            field.name
            for field in fields(kind)
            if field.default is MISSING and field.name not in values
        ]
        if missing:
            raise UsageError(
                f"[[{kind.__name__.lower()}]] {shown(given.get('title', ''))} lacks the keys "
                f"{', '.join(missing)}.",
                hint="Add them.",
            )
        return values


def _over(values: Mapping[str, Any], quick: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` updated with `quick`, in which "settings.side" sets one option of a table.

    Raises UsageError for an option of a value that is not a table.
    """
    found = dict(values)
    for name, value in quick.items():
        table, dot, option = name.partition(".")
        before = found.get(table, {})
        if dot and not isinstance(before, dict):
            raise UsageError(
                f"Got quick.{name!r}, but {table} is no table.",
                hint=f"Write {table} = VALUE in quick.",
            )
        found[table] = {**before, option: value} if dot else value
    return found


def _check_shown(kind: type[Table | Plot], given: Mapping[str, Any]) -> None:
    what = kind.__name__.lower()
    for name, value in given.items():
        if name not in KEYS[kind]:
            raise unknown_name(f"key of [[{what}]]", name, KEYS[kind])
        KEYS[kind][name].check(f"{name} in [[{what}]]", value)


def _check_records(title: str, of: str) -> None:
    if of not in RECORD_KINDS:
        raise unknown_name(f"kind of record ({title})", of, RECORD_KINDS)


def lines_of(text: str) -> tuple[Mapping[str, Any], ...]:
    """Parse a reference in CSV format with a header, and return its rows.

    Numbers, true and false are converted; empty cells are left out. Raises UsageError for invalid
    CSV or a row with more cells than the header.
    """
    found = csv.DictReader(io.StringIO(text.strip()), skipinitialspace=True)
    try:
        lines = list(found)
    except csv.Error as error:
        raise UsageError(
            f"Could not read a reference as lines with commas: {error}.", hint="Correct that line."
        ) from error
    for line in lines:
        if None in line:
            raise UsageError(
                f"A line of a reference has more cells than its head: {shown(line[None])} are left "
                "over.",
                hint=f"Give each line {len(found.fieldnames or ())} cells.",
            )
    return tuple(
        {key.strip(): _value(cell.strip()) for key, cell in line.items() if cell and cell.strip()}
        for line in lines
    )


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)

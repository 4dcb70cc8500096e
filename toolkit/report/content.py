"""Content of a report, independent of its file format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.core.documents import Json
from toolkit.report.figures import written


@dataclass(frozen=True, kw_only=True)
class Column:
    """Column of a table.

    `name` determines how values are formatted (see toolkit.report.figures). `numeric` columns are
    right-aligned. `reference` marks values of the reference of a study.
    """

    name: str
    label: str
    numeric: bool = False
    reference: bool = False


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Table of a report. `rows` have one value per column, None if it is unknown."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    section: str = "results"

    def written(self) -> list[list[str]]:
        """Return the rows as formatted text."""
        return [
            [written(column.name, value) for column, value in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]

    def to_json(self) -> Json:
        return {
            "title": self.title,
            "note": self.note,
            "columns": [column.label for column in self.columns],
            "rows": [list(row) for row in self.rows],
        }


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Plot as a Vega-Lite specification with its data; `alt` describes it in words.

    `choices` are sets of records by name, of which the reader chooses the one that is shown.
    """

    title: str
    spec: Mapping[str, Any]
    alt: str
    note: str = ""
    section: str = "results"
    choices: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Content:
    """Content of a report.

    `facts` are the distinct environments: machine, versions and so on, by name. `records` are all
    records, by kind.
    """

    title: str
    about: str
    created: str
    warnings: Sequence[str]
    grids: Sequence[Grid]
    charts: Sequence[Chart]
    limits: Sequence[str]
    facts: Sequence[Mapping[str, Any]]
    records: Mapping[str, Sequence[Mapping[str, Any]]]

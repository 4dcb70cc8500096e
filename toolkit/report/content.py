"""What a report shows, whatever it is written as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.core.documents import Json
from toolkit.report.figures import written


@dataclass(frozen=True, kw_only=True)
class Column:
    """`name` is what its figures are written by; `numeric` ones are aligned to the right."""

    name: str
    label: str
    numeric: bool = False
    reference: bool = False


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table: `rows` hold a value for each column, None where it is not known."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    section: str = "results"

    def written(self) -> list[list[str]]:
        """The rows as they are read."""
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
    """A plot as Vega-Lite has it, with its data; `alt` says in words what it shows.

    `choices` are series by name, each the records that the plot shows when it is chosen.
    """

    title: str
    spec: Mapping[str, Any]
    alt: str
    note: str = ""
    section: str = "results"
    choices: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Content:
    """A report. `facts` are of the machines and the versions, by name; `records` all figures, by
    kind."""

    title: str
    about: str
    created: str
    warnings: Sequence[str]
    grids: Sequence[Grid]
    charts: Sequence[Chart]
    limits: Sequence[str]
    facts: Sequence[Mapping[str, Any]]
    records: Mapping[str, Sequence[Mapping[str, Any]]]

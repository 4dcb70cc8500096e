"""Writing of a report, as one file or as a directory of images."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from toolkit.core.documents import plain
from toolkit.core.errors import UsageError, unknown_name
from toolkit.core.files import new_directory, write_atomically
from toolkit.report.build import build
from toolkit.report.content import Content, Grid
from toolkit.report.gather import gather
from toolkit.report.markdown import markdown_table

SCHEMA = "toolkit.report/1"
SUFFIXES = {".html": "html", ".htm": "html", ".md": "md", ".csv": "csv", ".json": "json"}
FORMATS = ("html", "md", "csv", "json", "png")


def write_report(
    sources: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    format: str | None = None,
    warn: Callable[[str], None] = lambda warning: None,
) -> Path:
    """Write a report of `sources` to `out`, replacing an earlier report, and return its path.

    `sources` are those of toolkit.report.gather.gather. `format` is one of FORMATS, by default
    determined by the suffix of `out`. "png" creates a new directory with an image of each plot.
    "csv" has all records, with their kind. `warn` is called with a sentence for each file that
    cannot be read and is left out. Raises the errors of `gather`, UnknownNameError for an unknown
    format, UsageError for an unknown suffix, OutputExistsError for "png" if `out` exists and is not
    an empty directory, and ModuleNotFoundError for "html" and "png" without the packages of the
    extra `report`.
    """
    target = Path(out)
    chosen = format or SUFFIXES.get(target.suffix.lower())
    if chosen is None:
        raise UsageError(
            f"Got --out {target}, whose ending names no format.",
            hint=f"Let it end in {', '.join(SUFFIXES)}, or give --format {'|'.join(FORMATS)}.",
        )
    if chosen not in FORMATS:
        raise unknown_name("format of a report", chosen, FORMATS)
    gathered = gather([Path(one) for one in sources])
    for warning in gathered.unreadable:
        warn(warning)
    content = build(gathered, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    if chosen == "png":
        from toolkit.report.pictures import pictures

        with new_directory(target) as partial:
            for name, data in pictures(content):
                write_atomically(partial / name, data)
        return target
    # File names that are not UTF-8 contain lone surrogates.
    write_atomically(target, TEXTS[chosen](content).encode(errors="backslashreplace"))
    return target


def _html(content: Content) -> str:
    from toolkit.report.page import page

    return page(content)


def _markdown(content: Content) -> str:
    parts = [f"# {content.title}", f"Made {content.created}."]
    parts += [content.about] if content.about else []
    parts += [f"> **Warning:** {warning}" for warning in content.warnings]
    for grid in content.grids:
        parts += [f"## {grid.title}", *([grid.note] if grid.note else []), _table(grid)]
    if content.limits:
        limits = "\n".join(f"- {limit}" for limit in content.limits)
        parts += ["## What the reference could not separate", limits]
    return "\n\n".join(parts) + "\n"


def _table(grid: Grid) -> str:
    head = [column.label for column in grid.columns]
    numbers = [column.label for column in grid.columns if column.numeric]
    return markdown_table(head, grid.written(), numbers)


def _csv(content: Content) -> str:
    names = dict.fromkeys(
        name for records in content.records.values() for one in records for name in one
    )
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["kind", *names])
    writer.writeheader()
    for kind, records in content.records.items():
        writer.writerows({"kind": kind, **one} for one in records)
    return stream.getvalue()


def _json(content: Content) -> str:
    body = {
        "schema": SCHEMA,
        "title": content.title,
        "created": content.created,
        "warnings": list(content.warnings),
        "limits": list(content.limits),
        "tables": [grid.to_json() for grid in content.grids],
        "records": {kind: list(records) for kind, records in content.records.items()},
        "environments": list(content.facts),
    }
    return json.dumps(plain(body), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


TEXTS: Mapping[str, Callable[[Content], str]] = {
    "html": _html,
    "md": _markdown,
    "csv": _csv,
    "json": _json,
}

"""Tables in GitHub Flavored Markdown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Collection[str] = ()
) -> str:
    """Return a table; columns whose head is in `numeric` are right-aligned.

    Characters that would end a cell or start an HTML tag are escaped.
    """
    rule = ["---:" if name in numeric else "---" for name in head]
    return "\n".join([_line(head), _line(rule), *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(cell: str) -> str:
    told = cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(told.split())

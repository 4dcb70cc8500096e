"""Tables in GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Collection[str] = ()
) -> str:
    """A line for the head, one that aligns, and one for each row; what would end a cell or begin a
    tag is written so that it does not."""
    rule = ["---:" if name in numeric else "---" for name in head]
    return "\n".join([_line(head), _line(rule), *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(cell: str) -> str:
    told = cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(told.split())

"""Output of commands: tables and JSON on standard output, progress on standard error."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, final

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from toolkit.core.documents import plain
from toolkit.core.errors import StorageError
from toolkit.core.progress import Progress

__all__ = ["escape"]

PLAIN_WIDTH = 160  # columns if the output is not a terminal
MOST_BARS = 8


def stdout() -> Console:
    return _console(stderr=False)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, width=PLAIN_WIDTH)
    return console


def print_json(value: Any) -> None:
    typer.echo(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def print_lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells under `heads`, one line each, with aligned columns.

    This is fast for any number of rows; a rich table of 100,000 rows takes 40 s.
    """
    lines = [heads, *([" ".join(cell.split()) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    typer.echo("\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines))


def warn(warnings: Iterable[str]) -> None:
    """Print each warning on a line of standard error."""
    for warning in warnings:
        _console(stderr=True).out(f"warning: {warning}")


def table(title: str, *columns: str, numeric: tuple[str, ...] = ()) -> Table:
    """Return an empty table; the columns in `numeric` are aligned to the right."""
    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        min_width=len(title),
    )
    for column in columns:
        made.add_column(column, justify="right" if column in numeric else "left")
    return made


def fitting_table(
    console: Console,
    title: str,
    columns: tuple[str, ...],
    rows: list[dict[str, str]],
    *,
    text: tuple[str, ...],
) -> Table:
    """Return a table of as many of `columns`, from the first, as fit the width of the console.

    The first two columns are always shown. A row maps columns to cells; a missing cell is a dash.
    The columns in `text` are aligned to the left, the others to the right. The caption names the
    columns that are left out.
    """
    for count in range(len(columns), 1, -1):
        shown = columns[:count]
        made = table(title, *shown, numeric=tuple(c for c in shown if c not in text))
        for row in rows:
            made.add_row(*(row.get(column, "-") for column in shown))
        if console.measure(made, options=console.options.update(width=10_000)).maximum <= (
            console.width
        ):
            break
    if left_out := columns[count:]:
        made.caption = f"Not shown, for want of width: {', '.join(left_out)}. See --json."
        made.caption_justify = "left"
    return made


@contextmanager
def progress(*, lines: bool = False) -> Iterator[Progress]:
    """Show progress on standard error: bars on a terminal, plain lines elsewhere.

    With `lines`, a terminal also gets a line for each part that has a detail.
    """
    console = _console(stderr=True)
    if not console.is_terminal:
        yield PlainLines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[detail]}"),
    )
    with RichProgress(*columns, console=console) as bars:
        yield Bars(bars, lines=lines)


@final
class PlainLines(Progress):
    """Progress as one line per report."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        self._console.out(f"{task} {done}/{total}{': ' + detail if detail else ''}")

    def note(self, text: str) -> None:
        self._console.out(text)


@final
class Bars(Progress):
    """Progress as one bar per task, of the latest MOST_BARS tasks."""

    def __init__(self, bars: RichProgress, *, lines: bool = False) -> None:
        self._bars = bars
        self._lines = lines
        self._ids: dict[str, Any] = {}

    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        if task not in self._ids:
            self._ids[task] = self._bars.add_task(task, total=total, detail=detail)
            if len(self._ids) > MOST_BARS:
                self._bars.remove_task(self._ids.pop(next(iter(self._ids))))
        if self._lines and detail:
            self.note(f"{task} {done}/{total}: {detail}")
            detail = ""
        self._bars.update(self._ids[task], completed=done, total=total, detail=detail)

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False)


@final
class Unstored:
    """Context manager that defers a StorageError until the result is printed.

    `error` is that error, or None.
    """

    def __init__(self) -> None:
        self.error: StorageError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, StorageError):
            self.error = error
        return self.error is not None

    def path(self, usual: Path) -> str | None:
        """Return where the result is stored: `usual` without an error, else the error's path.

        Return None if the result is not stored anywhere.
        """
        if self.error is None:
            return str(usual)
        return str(self.error.path) if self.error.path else None

    def report(self) -> None:
        """Raise the deferred error, if there is one."""
        if self.error is not None:
            raise self.error


def duration(nanoseconds: float | None) -> str:
    """Format nanoseconds in a suitable unit; None becomes a dash."""
    if nanoseconds is None:
        return "-"
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return (
                f"{nanoseconds / size:.3g} {unit}"
                if nanoseconds < 999.5 * size
                else (f"{nanoseconds / size:,.0f} {unit}")
            )
    return f"{nanoseconds:.0f} ns"


def ratio_with(value: float, interval: Sequence[float] | None) -> str:
    """Return a ratio with its interval, if it has one, as text."""
    return f"{value:.3f} ({interval[0]:.3f}..{interval[1]:.3f})" if interval else f"{value:.3f}"


def size(size_bytes: float | None) -> str:
    """Format bytes in KiB or MiB; None becomes a dash."""
    if size_bytes is None:
        return "-"
    if abs(size_bytes) < 2**20:
        return f"{size_bytes / 2**10:,.0f} KiB"
    digits = 1 if abs(size_bytes) < 10 * 2**20 else 0
    return f"{size_bytes / 2**20:,.{digits}f} MiB"


def scientific(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"

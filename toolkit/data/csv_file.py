"""User data in a file of comma-separated values."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np

from toolkit.core.errors import UsageError, unknown_name
from toolkit.core.files import digest_file, wrapping_os_errors
from toolkit.core.options import Option
from toolkit.core.specs import Task, TaskKind
from toolkit.data.base import DataSet, Request, Splits, refuse_shape
from toolkit.data.tables import LEAST_ROWS, standardised

MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}


@final
class CsvFile(DataSet):
    """Samples [N, columns] from rows of numbers under a header; one column is the target.

    One fifth of the rows, drawn at random with a fixed seed, are test samples. The columns are
    standardised by the training samples. Classes may be texts or numbers, and are numbered in
    sorted order.
    """

    name: ClassVar[str] = "csv"
    options: ClassVar[Mapping[str, Option]] = {
        "target": Option(default="", help="The target column; the last one by default."),
        "kind": Option(
            default="regression",
            choices=("regression", "classification"),
            help="Whether the target is a number or a class.",
        ),
    }

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, request: Request) -> Splits:
        """Load the file.

        Raises UsageError, which names row and column, if it is not a table of numbers, and
        UnknownNameError if it does not have the target column.
        """
        table = _read(self._path)
        target = str(request.settings["target"]) or table.header[-1]
        if target not in table.header:
            raise unknown_name(f"column of {self._path}", target, table.header)
        columns = [name for name in table.header if name != target]
        shape = (len(columns),)
        if request.shape not in (None, shape):
            raise refuse_shape(str(self._path), request.shape, shape)
        preprocessing: dict[str, Any] = {
            "file": self._path.name,
            "file_digest": digest_file(self._path),
            "target": target,
        }
        if request.settings["kind"] == "classification":
            labels, classes = _classes(table, target)
            kind, outputs = TaskKind.CLASSIFICATION, len(classes)
            preprocessing["classes"] = classes
        else:
            labels = table.numbers(target).astype(np.float32)[:, None]
            kind, outputs = TaskKind.REGRESSION, 1
        return standardised(
            Task(kind=kind, input_shape=shape, outputs=outputs),
            np.stack([table.numbers(name) for name in columns], axis=1),
            labels,
            columns,
            preprocessing,
        )


@dataclass(frozen=True, kw_only=True)
class Table:
    """Fields of a file. `lines` has the number of the line where each row ends, from 1."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    def texts(self, column: str) -> list[str]:
        """Return the fields of a column. Raises UsageError if one is missing."""
        at = self.header.index(column)
        found = [row[at].strip() for row in self.rows]
        for row, text in enumerate(found):
            if text.lower() in MISSING:
                raise self.refusal(row, column, f"the value is missing ({text!r})")
        return found

    def numbers(self, column: str) -> np.ndarray:
        """Return a column as float64 [N]. Raises UsageError if a field is not a finite float32."""
        texts = self.texts(column)
        try:
            values = np.array(texts, dtype=np.float64)
        except ValueError:
            row = next(row for row, text in enumerate(texts) if not _is_number(text))
            raise self.refusal(row, column, f"{texts[row]!r} is no number") from None
        with np.errstate(over="ignore"):
            outside = np.flatnonzero(~np.isfinite(values.astype(np.float32)))
        if len(outside):
            text = texts[outside[0]]
            raise self.refusal(int(outside[0]), column, f"{text!r} is no number of float32")
        return values

    def refusal(self, row: int, column: str, what: str) -> UsageError:
        return UsageError(
            f"Read {self.path}: row {row + 1} (line {self.lines[row]}), column {column!r}: {what}.",
            hint="Give every row a number in every column: leave out the rows or columns that have "
            "none. Only the target may be text, with --data-option kind=classification.",
        )


def _read(path: Path) -> Table:
    """Read a file. Raises UsageError without a header of names, or if rows do not fit it."""
    try:
        with (
            wrapping_os_errors(f"read {path}"),
            path.open(encoding="utf-8-sig", newline="") as stream,
        ):
            reader = csv.reader(stream, strict=True)
            found = [(reader.line_num, row) for row in reader if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise _refusal(path, f"it is no text of comma-separated values: {error}") from error
    if not found:
        raise _refusal(path, "it is empty")
    header = [name.strip() for name in found[0][1]]
    _check_header(path, header)
    for number, (line, row) in enumerate(found[1:], 1):
        if len(row) != len(header):
            what = f"row {number} (line {line}) has {len(row)} fields, the header {len(header)}"
            raise _refusal(path, what)
    if len(found) - 1 < LEAST_ROWS:
        raise _refusal(path, f"it has {len(found) - 1} rows, expected at least {LEAST_ROWS}")
    return Table(
        path=path,
        header=header,
        rows=[row for _, row in found[1:]],
        lines=[line for line, _ in found[1:]],
    )


def _check_header(path: Path, header: Sequence[str]) -> None:
    if len(header) < 2:
        raise _refusal(path, f"it has one column, {header[0]!r}; two are needed to learn one")
    if all(_is_number(name) for name in header):
        raise _refusal(
            path, f"its first row holds numbers ({', '.join(header[:3])}, ...), no names"
        )
    if "" in header:
        raise _refusal(path, f"column {header.index('') + 1} has no name in the header")
    name, times = Counter(header).most_common(1)[0]
    if times > 1:
        raise _refusal(path, f"{times} columns are named {name!r}")


def _refusal(path: Path, what: str) -> UsageError:
    return UsageError(
        f"Read {path}: {what}.",
        hint="Expected a header of names, commas between the fields and a row a line, as pandas "
        "writes with frame.to_csv(path, index=False).",
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _classes(table: Table, target: str) -> tuple[np.ndarray, list[str]]:
    """Return classes int64 [N] and their names. Raises UsageError for too few or too many."""
    texts = table.texts(target)
    distinct = set(texts)
    if not 2 <= len(distinct) <= len(texts) // 2:
        raise UsageError(
            f"Read {table.path}: column {target!r} has {len(distinct)} classes in {len(texts)} "
            "rows, expected at least 2, and half as many as rows at most.",
            hint="Name another --data-option target, or leave out kind=classification to learn a "
            "number.",
        )
    in_order = sorted(distinct, key=float if all(map(_is_number, distinct)) else None)
    numbers = {text: number for number, text in enumerate(in_order)}
    return np.array([numbers[text] for text in texts], np.int64), in_order

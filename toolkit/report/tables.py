"""Tables of a report: those of every report, and those that a study defines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.report.content import Column, Grid
from toolkit.report.figures import label, numeric
from toolkit.study.document import Table

Record = Mapping[str, Any]

LATENCY = (
    "model", "data", "form", "runtime", "device", "batch", "threads", "tuning", "precision",
    "forward_ms", "forward_low_ms", "forward_high_ms", "forward_p99_ms", "forward_ratio",
    "forward_verdict", "forward_samples_per_s", "end_to_end_ms", "end_to_end_low_ms",
    "end_to_end_high_ms", "end_to_end_p99_ms", "end_to_end_verdict", "open_ms", "query_ms",
    "query_p99_ms", "achieved_qps", "peak_rss_mib", "artifact_mib", "parity_max_abs", "status",
    "machine", "reason",
)  # fmt: skip
TRAINING = (
    "model", "data", "trainer", "seed", "epochs", "batch", "optimizer", "learning_rate", "train_s",
    "epoch_s", "prepare_s", "images_per_s", "test_s", "peak_mib", "state_dict_bytes",
    "best_test_accuracy", "test_accuracy", "test_loss", "best_test_mae", "test_mae", "test_mse",
    "status", "machine", "reason",
)  # fmt: skip
TRAINERS = (
    "model", "data", "trainer", "batch", "threads", "epoch_ms", "epoch_low_ms", "epoch_high_ms",
    "epoch_ratio", "epoch_verdict", "epoch_samples_per_s", "open_ms", "first_loss", "last_loss",
    "parity_max_abs", "peak_rss_mib", "status", "machine", "reason",
)  # fmt: skip
ACCURACY = (
    "model", "data", "form", "runtime", "accuracy", "loss", "mse", "mae", "drop", "drop_low",
    "drop_high", "agreement", "max_abs", "gate", "test_rows", "status", "reason",
)  # fmt: skip
EVERY: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "rows": ("Latency", LATENCY),
    "trainings": ("Training runs", TRAINING),
    "training_rows": ("Training speed, measured in turn", TRAINERS),
    "accuracy": ("Accuracy on the whole test split", ACCURACY),
}
ALONE = frozenset({"tuning", "machine", "device", "threads", "data", "seed", "epochs"})
"""Columns that are replaced by a note if all rows have the same value."""


def general(kinds: Mapping[str, Sequence[Record]]) -> list[Grid]:
    """Return a table for each kind of record that is present, without empty columns."""
    return [
        _grid(title, columns, kinds[kind])
        for kind, (title, columns) in EVERY.items()
        if kinds.get(kind)
    ]


def _grid(title: str, names: Sequence[str], records: Sequence[Record]) -> Grid:
    shown = [name for name in names if _says_something(name, [one.get(name) for one in records])]
    constant = [
        f"{label(name)} {records[0][name]}"
        for name in names
        if name not in shown and records[0].get(name) not in (None, "", [])
    ]
    return Grid(
        title=title,
        columns=[_column(name, records) for name in shown],
        rows=[[one.get(name) for name in shown] for one in records],
        note=f"All with {', '.join(constant)}." if constant else "",
    )


def _says_something(name: str, values: Sequence[Any]) -> bool:
    known = [value for value in values if value not in (None, "", [])]
    if not known:
        return False
    return name not in ALONE or len({str(value) for value in values}) > 1


def _column(name: str, records: Sequence[Record]) -> Column:
    values = [one.get(name) for one in records]
    return Column(name=name, label=label(name), numeric=numeric(values))


def of_study(table: Table, records: Sequence[Record]) -> Grid:
    """Return a table that a study defines, with reference values next to measured ones.

    If a line exists on only one side, the values of the other are unknown. Several records for one
    line, such as seeds or repetitions, are reduced to their median. Different machines have
    separate lines.
    """
    if table.across:
        return _across(table, table.across, records)
    keys, metrics = list(table.rows), list(table.metrics)
    found = where(records, table.where)
    own = [*keys, *apart(found)]
    ours, theirs = _by_line(found, own), _by_line(table.reference, keys)
    given = {name for line in table.reference for name in line}
    met = {line[: len(keys)] for line in ours}
    lines = [
        {
            **dict(zip(own, line, strict=False)),
            **{name: _median(name, ours.get(line, [])) for name in metrics},
            **{
                f"reference {name}": _median(name, theirs.get(line[: len(keys)], []))
                for name in metrics
            },
            "note": _reason(ours.get(line)),
        }
        for line in (*ours, *(line for line in theirs if line not in met))
    ]
    keys = own
    columns = [_column(key, lines) for key in keys]
    for name in metrics:
        columns.append(Column(name=name, label=label(name), numeric=True))
        if name in given:
            columns.append(
                Column(name=name, label=f"{label(name)}, reference", numeric=True, reference=True)
            )
    names = [*keys]
    for name in metrics:
        names += [name, *([f"reference {name}"] if name in given else [])]
    if any(line["note"] for line in lines):
        columns.append(Column(name="note", label="why not"))
        names.append("note")
    return Grid(
        title=table.title,
        columns=columns,
        rows=[[line.get(name) for name in names] for line in lines],
        note=table.note,
        section="study",
    )


def _across(table: Table, over: str, records: Sequence[Record]) -> Grid:
    """Return a table with one column per value of `over`; the reference has separate lines."""
    keys, (metric,), at = list(table.rows), table.metrics, list(table.at)
    records = where(records, table.where)
    keys += apart(records)
    ours = _by_line(records, keys)
    rows: list[list[Any]] = []
    for line, found in ours.items():
        values = [
            _median(metric, [one for one in found if equal(one.get(over), value)]) for value in at
        ]
        rows.append([*line, "ours", *values])
    theirs = table.reference
    rows += [
        [*(one.get(key) for key in keys), "reference", *(one.get(str(value)) for value in at)]
        for one in theirs
    ]
    order = {
        line: number
        for number, line in enumerate(dict.fromkeys(tuple(r[: len(keys)]) for r in rows))
    }
    rows.sort(key=lambda row: order[tuple(row[: len(keys)])])
    if not theirs:
        rows = [[*row[: len(keys)], *row[len(keys) + 1 :]] for row in rows]
    return Grid(
        title=table.title,
        columns=[
            *(Column(name=key, label=label(key)) for key in keys),
            *([Column(name="whose", label="whose")] if theirs else []),
            *(Column(name=metric, label=f"{over} {value}", numeric=True) for value in at),
        ],
        rows=rows,
        note=f"{label(metric)}. {table.note}".strip(),
        section="study",
    )


def apart(records: Sequence[Record]) -> list[str]:
    """Return the column that separates records of several machines; empty for one machine."""
    return ["machine"] if len({one.get("machine") for one in records}) > 1 else []


def where(records: Iterable[Record], rule: Mapping[str, Any]) -> list[Record]:
    return [
        one
        for one in records
        if all(
            any(
                equal(one.get(key), value) for value in (want if isinstance(want, list) else [want])
            )
            for key, want in rule.items()
        )
    ]


def _by_line(records: Iterable[Record], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Record]]:
    found: dict[tuple[Any, ...], list[Record]] = {}
    for one in records:
        line = tuple(_key(one.get(key)) for key in keys)
        found.setdefault(line, []).append(one)
    return found


def _key(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(map(str, value))
    whole = isinstance(value, float) and value.is_integer()
    return int(value) if whole else value


def equal(a: Any, b: Any) -> bool:
    return bool(_key(a) == _key(b))


def _median(name: str, records: Sequence[Record]) -> Any:
    values = [one[name] for one in records if one.get(name) is not None]
    if not values:
        return None
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return float(np.median(values)) if len(values) > 1 else values[0]
    return " / ".join(dict.fromkeys(map(str, values)))


def _reason(records: Sequence[Record] | None) -> str | None:
    """Return why a line has no measured values, None if it has them."""
    if records is None:
        return "not part of this run"
    reasons = [
        one.get("reason") for one in records if one.get("status") not in (None, "ok", "done")
    ]
    return " ".join(dict.fromkeys(filter(None, reasons))) or None

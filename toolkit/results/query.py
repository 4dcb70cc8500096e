"""SQL queries over stored results, with DuckDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.core.documents import Json, canonical, plain
from toolkit.core.errors import UnavailableError, UsageError
from toolkit.core.measurement import Result
from toolkit.core.temporary import scratch_directory
from toolkit.measuring.figures.records import row_records
from toolkit.results import store

TABLES = ("results", "rows", "samples")

SAMPLES = {
    "result": "VARCHAR",
    "row": "BIGINT",
    "runtime": "VARCHAR",
    "batch": "BIGINT",
    "scope": "VARCHAR",
    "process": "BIGINT",
    "round": "BIGINT",
    "ns": "BIGINT",
}
"""Columns of the table `samples`, with their DuckDB types."""

TYPES: Mapping[type, str] = {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", str: "VARCHAR"}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Rows that a query returned; `warnings` name results that could not be read."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    warnings: Sequence[str] = ()

    def to_json(self) -> Json:
        return {
            "schema": "toolkit.query/1",
            "columns": list(self.columns),
            "rows": [
                {name: _json(cell) for name, cell in zip(self.columns, row, strict=True)}
                for row in self.rows
            ],
            "warnings": list(self.warnings),
        }


def _json(cell: Any) -> Any:
    """Return a DuckDB value as JSON: lists and structs as such, types unknown to JSON as text."""
    if isinstance(cell, list | tuple):
        return [_json(one) for one in cell]
    if isinstance(cell, dict):
        return {str(key): _json(one) for key, one in cell.items()}
    return cell if cell is None or isinstance(cell, bool | int | float | str) else str(cell)


def query(sql: str, *, directory: Path = Path("results")) -> Answer:
    """Run `sql` over all results of a directory, and return the answer.

    Tables: `results`, one row per file; `rows`, one row per row of a result, with the columns of
    measuring/figures/records.py; `samples`, one row per measured run, in nanoseconds. The query
    writes nothing to disk and reads nothing else: files, extensions and the network are disabled. A
    result that cannot be read is left out, with a warning in the answer. Raises UsageError if no
    result can be read or DuckDB rejects the query, UnavailableError if DuckDB is not installed.
    """
    try:
        import duckdb
    except ImportError as error:
        raise UnavailableError(
            f"DuckDB could not be imported: {error}.",
            hint="Install it: pip install 'inference-toolkit[report]'",
        ) from error
    warnings: list[str] = []
    found = store.load_readable(store.paths(directory), warnings.append)
    if not found:
        raise UsageError(
            " ".join([f"{directory} holds no results that can be read.", *warnings]),
            hint="Give --dir, or measure something first.",
        )
    with scratch_directory() as scratch, duckdb.connect(":memory:") as connection:
        for name, records in _tables(found).items():
            _load(connection, name, records, scratch / f"{name}.json")
        _load_samples(connection, [result for _, result in found])
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        try:
            if not connection.extract_statements(sql):
                raise UsageError(
                    f"Got --sql {sql!r}, which has no statement.",
                    hint="Give one, such as 'SELECT runtime, forward_ms FROM rows'.",
                )
            answer = connection.execute(sql)
            columns = [column[0] for column in answer.description or ()]
            return Answer(columns=columns, rows=answer.fetchall(), warnings=warnings)
        except (duckdb.Error, OverflowError, ValueError) as error:  # last two: large intervals
            known = [f"{name}: {', '.join(_columns(connection, name))}" for name in TABLES]
            raise UsageError(
                f"DuckDB could not answer: {str(error).partition(chr(10))[0]}",
                hint=f"Tables: {'; '.join(known)}.",
            ) from error


def _tables(found: Sequence[tuple[Path, Result]]) -> dict[str, list[Mapping[str, Any]]]:
    return {
        "results": [_result(path, result) for path, result in found],
        "rows": [record for _, result in found for record in row_records(result)],
    }


def _result(path: Path, result: Result) -> Mapping[str, Any]:
    return {
        "result": result.id,
        "created": result.created,
        "artifact": result.plan.get("artifact"),
        "cpu": result.environment["cpu"]["model"],
        "threads": result.plan["options"]["threads"],
        "commit": result.environment["commit"],
        "warnings": len(result.warnings),
        "path": str(path),
    }


def _samples(results: Sequence[Result]) -> dict[str, np.ndarray]:
    """Return the columns of the table `samples`, one value for each sample of `results`."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in SAMPLES}
    for result in results:
        for number, row in enumerate(result.rows):
            for measurement in row.measurements:
                for block in measurement.blocks:
                    values = (
                        result.id, number, row.runtime, row.batch, str(measurement.scope),
                        block.process, block.round, block.samples,
                    )  # fmt: skip
                    for (name, kind), value in zip(SAMPLES.items(), values, strict=True):
                        dtype = object if kind == "VARCHAR" else np.int64
                        parts[name].append(np.full(len(block.samples), value, dtype))
    return {name: np.concatenate(arrays) for name, arrays in parts.items() if arrays}


def _load(connection: Any, name: str, records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Create a table with a column for each key of any record, typed by its values."""
    types: dict[str, str] = {}
    for record in records:
        for key, value in record.items():
            kind = TYPES.get(type(value))
            if kind is not None:
                types[key] = "DOUBLE" if {types.get(key), kind} == {"BIGINT", "DOUBLE"} else kind
    with path.open("wb") as stream:
        for record in records:
            stream.write(canonical(plain(record)) + b"\n")
    columns = ", ".join(f"'{key}': '{kind}'" for key, kind in types.items())
    connection.execute(
        f"CREATE TABLE {name} AS SELECT * FROM "
        f"read_json(?, format = 'newline_delimited', columns = {{{columns}}})",
        [str(path)],
    )


def _load_samples(connection: Any, results: Sequence[Result]) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in SAMPLES.items())
    connection.execute(f"CREATE TABLE samples ({columns})")
    if arrays := _samples(results):
        connection.register("arrays", arrays)
        connection.execute("INSERT INTO samples SELECT * FROM arrays")
        connection.unregister("arrays")


def _columns(connection: Any, name: str) -> list[str]:
    return [row[0] for row in connection.execute(f"DESCRIBE {name}").fetchall()]

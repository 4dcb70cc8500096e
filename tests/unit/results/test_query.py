"""SQL over stored results: answers of any type, and statements that have none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.stored_results import result_of
from toolkit.core.documents import plain
from toolkit.core.errors import UsageError
from toolkit.results import store
from toolkit.results.query import query


@pytest.fixture
def results(tmp_path: Path) -> Path:
    store.save(tmp_path, result_of(["torch", "onnxruntime"]))
    return tmp_path


@pytest.mark.parametrize("sql", ["", "  ", ";", "-- nothing"])
def test_sql_without_a_statement_is_refused(results: Path, sql: str) -> None:
    with pytest.raises(UsageError, match="has no statement"):
        query(sql, directory=results)


def test_an_answer_that_python_cannot_hold_is_refused(results: Path) -> None:
    with pytest.raises(UsageError, match="could not answer"):
        query("SELECT INTERVAL 1000000000 MONTHS", directory=results)


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("DATE '2025-01-02'", "2025-01-02"),
        ("[runtime]", ["torch"]),
        ("{'a': DATE '2025-01-02'}", {"a": "2025-01-02"}),
        ("MAP([1], [2])", {"1": 2}),
        ("2.50::DECIMAL(5, 2)", "2.50"),
        ("'nan'::DOUBLE", None),
        ("batch", 1),
    ],
)
def test_a_value_of_any_type_is_written_as_json(results: Path, sql: str, told: object) -> None:
    answer = query(f"SELECT {sql} AS value FROM rows WHERE runtime = 'torch'", directory=results)
    (row,) = json.loads(json.dumps(plain(answer.to_json()), allow_nan=False))["rows"]
    assert row == {"value": told}

"""Figures as they are written, and tables with a reference beside ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.report.figures import label, number, written
from toolkit.report.markdown import markdown_table
from toolkit.report.tables import of_study

TABLE = {
    "title": "T", "of": "rows", "rows": ["runtime", "batch"], "metrics": ["forward_ms"],
    "where": {"batch": [1, 8]}, "across": None, "at": [], "note": "",
    "reference": [{"runtime": "torch", "batch": 1, "forward_ms": 2.0},
                  {"runtime": "neon", "batch": 1.0, "forward_ms": 3.0}],
}  # fmt: skip
RECORDS = [
    {"runtime": "torch", "batch": 1, "forward_ms": 4.0, "status": "ok"},
    {"runtime": "torch", "batch": 1, "forward_ms": 6.0, "status": "ok"},
    {"runtime": "tripy", "batch": 8, "status": "unavailable", "reason": "No GPU."},
    {"runtime": "torch", "batch": 64, "forward_ms": 9.0, "status": "ok"},
]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("forward_p99_ms", "forward p99, ms"),
        ("forward_ms_per_sample", "forward, ms a sample"),
        ("epoch_samples_per_s", "epoch samples/s"),
        ("peak_rss_mib", "peak RSS, MiB"),
        ("best_test_accuracy", "best test accuracy, %"),
        ("settings.accuracy", "accuracy"),
        ("test_mae", "test MAE"),
        ("runtime", "runtime"),
    ],
)
def test_columns_are_named_with_their_unit(name: str, told: str) -> None:
    assert label(name) == told


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("accuracy", 0.72695, "72.69"),
        ("settings.accuracy", 0.25, "0.25"),
        ("learning_rate", 0.001, "0.001"),
        ("forward_ms", None, "-"),
        ("forward_ms", float("nan"), "-"),
        ("forward_ms", 0.00081234, "0.0008123"),
        ("forward_ms", 12345.6, "12,346"),
        ("state_dict_bytes", 292688, "292,688"),
        ("forward_ms", 1e-9, "1.00e-09"),
        ("parity_passed", True, "yes"),
        ("passes", [], "-"),
    ],
)
def test_figures_are_written_by_their_column(name: str, value: object, told: str) -> None:
    assert written(name, value) == told


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_written_number_is_that_number(value: float) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=6e-3)


def test_ours_and_theirs_share_a_line() -> None:
    grid = of_study(TABLE, RECORDS)
    assert [column.label for column in grid.columns] == [
        "runtime", "batch", "forward, ms", "forward, ms, reference", "why not",
    ]  # fmt: skip
    assert grid.rows == [
        ["torch", 1, 5.0, 2.0, None],
        ["tripy", 8, None, None, "No GPU."],
        ["neon", 1, None, 3.0, "not part of this run"],
    ]


def test_one_dimension_may_go_across() -> None:
    table = {**TABLE, "rows": ["runtime"], "where": {}, "across": "batch", "at": [1, 64],
             "reference": [{"runtime": "torch", "1": 2.5}]}  # fmt: skip
    grid = of_study(table, RECORDS)
    assert grid.rows == [
        ["torch", "ours", 5.0, 9.0],
        ["torch", "reference", 2.5, None],
        ["tripy", "ours", None, None],
    ]


def test_markdown_keeps_its_cells() -> None:
    found = markdown_table(["a", "n"], [["x|y", "1"], ["<b>\nz", "2"]], ["n"])
    assert found.splitlines() == [
        "| a | n |", "| --- | ---: |", "| x\\|y | 1 |", "| &lt;b> z | 2 |",
    ]  # fmt: skip

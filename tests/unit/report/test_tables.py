"""Figures as they are written, and tables with a reference beside ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.report.charts import general
from toolkit.report.charts import of_study as plot_of_study
from toolkit.report.figures import label, number, written
from toolkit.report.markdown import markdown_table
from toolkit.report.tables import of_study
from toolkit.study.document import Plot, Table

TABLE = Table(
    title="T", of="rows", rows=("runtime", "batch"), metrics=("forward_ms",),
    where={"batch": [1, 8]},
    reference=({"runtime": "torch", "batch": 1, "forward_ms": 2.0},
               {"runtime": "neon", "batch": 1.0, "forward_ms": 3.0}),
)  # fmt: skip
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
    table = replace(TABLE, rows=("runtime",), where={}, across="batch", at=(1, 64),
                    reference=({"runtime": "torch", "1": 2.5},))  # fmt: skip
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


def test_what_two_machines_gave_stays_apart() -> None:
    """The reference stands beside each of them."""
    records = [{**one, "machine": machine} for one in RECORDS[:1] for machine in ("EPYC", "Xeon")]
    records[1]["forward_ms"] = 8.0
    grid = of_study(TABLE, records)
    assert [column.name for column in grid.columns[:3]] == ["runtime", "batch", "machine"]
    assert [row[:5] for row in grid.rows] == [
        ["torch", 1, "EPYC", 4.0, 2.0],
        ["torch", 1, "Xeon", 8.0, 2.0],
        ["neon", 1, None, None, 3.0],
    ]
    epochs = replace(TABLE, across="batch", at=(1,), reference=())
    assert [row[2:] for row in of_study(epochs, records).rows] == [
        ["EPYC", 4.0],
        ["Xeon", 8.0],
    ]


def test_plots_keep_machines_apart() -> None:
    rows = [
        {"model": "lenet", "runtime": "torch", "batch": batch, "threads": 1, "status": "ok",
         "machine": machine, "forward_samples_per_s": 100.0 * batch, "result": "r", "group": 0}
        for machine in ("EPYC", "Xeon")
        for batch in (1, 8)
    ]  # fmt: skip
    (chart,) = general({"rows": rows}, [])
    assert chart.title == "Throughput against batch"
    assert set(chart.choices) == {"lenet, EPYC", "lenet, Xeon"}
    plot = Plot(
        title="P", of="rows", x="batch", y="forward_samples_per_s", by=("runtime",), where={}
    )
    drawn = plot_of_study(plot, rows, [])
    assert drawn is not None
    series = {one["series"] for one in drawn.spec["data"]["values"]}
    assert series == {"torch, EPYC", "torch, Xeon"}


def test_an_axis_in_percent_has_percent() -> None:
    plot = Plot(
        title="P", of="trainings", x="train_s", y="test_accuracy", by=("model",), where={},
        reference="T", log_x=True, kind="point",
    )  # fmt: skip
    theirs = [replace(TABLE, reference=({"model": "a", "train_s": 2.0, "test_accuracy": 0.5},))]
    drawn = plot_of_study(plot, [{"model": "a", "train_s": 1.0, "test_accuracy": 0.25}], theirs)
    assert drawn is not None
    assert [one["y"] for one in drawn.spec["data"]["values"]] == [25.0, 50.0]
    assert "from 25 to 25" in drawn.alt
    epochs = [{"cell": "c", "epoch": 1, "test_accuracy": 0.25}]
    (curve,) = general({"epochs": epochs}, [])
    assert [one["value"] for one in curve.choices[""]] == [25.0]


def test_lines_of_one_model_are_told_apart_by_how_they_were_run() -> None:
    rows = [
        {"model": "lenet", "runtime": "torch", "batch": batch, "threads": threads, "status": "ok",
         "machine": "EPYC", "forward_samples_per_s": 1.0, "result": "r", "group": 0}
        for threads in (1, 2)
        for batch in (1, 8)
    ]  # fmt: skip
    (chart,) = general({"rows": rows}, [])
    assert {one["row"] for one in chart.choices["lenet"]} == {
        "torch · threads 1",
        "torch · threads 2",
    }

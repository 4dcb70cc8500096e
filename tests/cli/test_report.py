"""toolkit report: one page, and the same as Markdown, CSV, JSON and pictures."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Run, run_toolkit
from toolkit.report.write import write_report
from toolkit.results import store


@pytest.fixture(scope="module")
def results(main_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with results of bench and of bench-training."""
    place = tmp_path_factory.mktemp("report")
    for args in (
        ("bench", main_path / "lenet-onnx", "--runtime", "torch,onnxruntime", "--batch", "1,8"),
        ("bench", main_path / "lenet-onnx", "--runtime", "openvino", "--scope", "forward,open"),
    ):
        done = run_toolkit(*args, "--runs", 20, "--warmup", 2, "--out", "results", cwd=place)
        assert done.returncode == 0, done.stderr
    return place / "results"


def test_the_page_needs_nothing_else(results: Path, toolkit_cli: Run, tmp_path: Path) -> None:
    done = toolkit_cli("report", results)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert "https://cdn" not in page
    assert 'src="http' not in page
    assert "onnxruntime" in page
    for heading in ("Latency", "Pareto front", "Throughput against batch", "Environment"):
        assert heading in page


def test_names_from_files_cannot_become_code(
    results: Path, toolkit_cli: Run, tmp_path: Path
) -> None:
    (path, *_) = store.paths(results)
    result = store.load(path)
    evil = "</script><script>alert(1)</script>"
    rows = tuple(replace(row, artifact=f"/x/{evil}/model.onnx") for row in result.rows)
    store.save(tmp_path, replace(result, rows=rows, warnings=(evil,)))
    assert toolkit_cli("report", tmp_path / path.name).returncode == 0
    assert "<script>alert(1)" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("name", ["r.csv", "r.json"])
def test_a_checkpoint_whose_name_is_not_utf_8_is_reported(
    checkpoint_dir: Path, tmp_path: Path, name: str
) -> None:
    source = tmp_path / os.fsdecode(b"net\xff")
    source.symlink_to(checkpoint_dir)
    text = write_report([source], tmp_path / name).read_text(encoding="utf-8")
    assert "net\\udcff" in text


def test_markdown_has_the_tables(results: Path, toolkit_cli: Run, tmp_path: Path) -> None:
    assert toolkit_cli("report", results, "--out", "r.md").returncode == 0
    text = (tmp_path / "r.md").read_text()
    assert "## Latency" in text
    assert "| openvino |" in text


def test_a_warning_names_its_model_where_there_are_several(
    results: Path, toolkit_cli: Run, tmp_path: Path
) -> None:
    one, other = map(store.load, store.paths(results))
    rows = tuple(replace(row, artifact="/x/other/model.onnx") for row in other.rows)
    store.save(tmp_path / "both", replace(one, warnings=("It drifted.",)))
    assert toolkit_cli("report", "both", "--out", "one.md").returncode == 0
    assert "> **Warning:** It drifted." in (tmp_path / "one.md").read_text()
    store.save(tmp_path / "both", replace(other, rows=rows))
    assert toolkit_cli("report", "both", "--out", "two.md").returncode == 0
    assert "> **Warning:** lenet-onnx: It drifted." in (tmp_path / "two.md").read_text()


def test_csv_and_json_have_the_same_records(
    results: Path, toolkit_cli: Run, tmp_path: Path
) -> None:
    for name in ("r.csv", "r.json"):
        assert toolkit_cli("report", results, "--out", name).returncode == 0
    with (tmp_path / "r.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["kind"] == "rows"]
    records = json.loads((tmp_path / "r.json").read_text())["records"]["rows"]
    assert [float(row["forward_ms"]) for row in rows] == [one["forward_ms"] for one in records]
    assert len(rows) == 5


def test_pictures_are_drawn_without_a_browser(
    results: Path, toolkit_cli: Run, tmp_path: Path
) -> None:
    done = toolkit_cli("report", results, "--out", "plots", "--format", "png")
    assert done.returncode == 0, done.stderr
    pictures = list((tmp_path / "plots").glob("*.png"))
    assert len(pictures) > 5
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size > 4000


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--out", "r.pdf"), "ending names no format"),
        (("--format", "pdf"), "no format of a report named 'pdf'"),
    ],
)
def test_wrong_use_is_told(
    results: Path, toolkit_cli: Run, args: tuple[str, ...], told: str
) -> None:
    done = toolkit_cli("report", results, *args)
    assert done.returncode == 2
    assert told in done.stderr


def test_results_answer_sql(results: Path, toolkit_cli: Run) -> None:
    sql = "SELECT runtime, batch, round(forward_ms, 3) AS ms FROM rows ORDER BY runtime, batch"
    done = toolkit_cli("results", "query", "--sql", sql, "--dir", results, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["columns"] == ["runtime", "batch", "ms"]
    assert [(row["runtime"], row["batch"]) for row in answer["rows"]] == [
        ("onnxruntime", 1), ("onnxruntime", 8), ("openvino", 1), ("torch", 1), ("torch", 8),
    ]  # fmt: skip
    counted = toolkit_cli(
        "results", "query", "--dir", results, "--json", "--sql",
        "SELECT count(*) AS n, median(ns) / 1e6 AS ms FROM samples "
        "WHERE runtime = 'openvino' AND scope = 'forward'",
    )  # fmt: skip
    (row,) = json.loads(counted.stdout)["rows"]
    assert row["n"] == 20
    shown = toolkit_cli("results", "query", "--dir", results, "--sql", "SELECT cpu FROM results")
    assert shown.returncode == 0


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT nosuch FROM rows", "forward_ms"),
        ("SELEC 1", "Parser Error"),
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled"),
        ("COPY rows TO 'stolen.csv'", "disabled"),
    ],
)
def test_sql_that_cannot_be_answered_is_told(
    results: Path, toolkit_cli: Run, tmp_path: Path, sql: str, told: str
) -> None:
    done = toolkit_cli("results", "query", "--dir", results, "--sql", sql)
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / "stolen.csv").exists()


def test_a_comparison_is_a_comment_for_a_pull_request(results: Path, toolkit_cli: Run) -> None:
    a, b = (path.stem for path in store.paths(results))
    done = toolkit_cli("compare", a, a, "--out", results, "--markdown")
    assert done.stdout.startswith("### Latency: ")
    assert "| runtime | batch | scope |" in done.stdout
    assert b

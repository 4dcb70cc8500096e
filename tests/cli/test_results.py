"""A stored result is read again, without measuring."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run, run_toolkit


@pytest.fixture(scope="module")
def stored(artifact_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which `results/` holds one run of bench."""
    place = tmp_path_factory.mktemp("stored")
    done = run_toolkit(
        "bench", artifact_dir, "--runtime", "onnxruntime,null", "--scope", "forward",
        "--warmup", 5, "--runs", 200, cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place


def test_percentiles_come_from_the_raw_samples(stored: Path) -> None:
    (path,) = (stored / "results").glob("*.json")
    raw = json.loads(path.read_text())["rows"][0]["measurements"][0]
    samples = np.concatenate([block["samples"] for block in raw["blocks"]])
    assert (len(samples), len(raw["warmup"])) == (200, 5)
    done = run_toolkit(
        "results", "show", path.stem, "--percentiles", "50,95,99", "--json", cwd=stored
    )
    assert done.returncode == 0, done.stderr
    forward = json.loads(done.stdout)["rows"][0]["scopes"]["forward"]
    assert forward["p50_ns"] == forward["median_ns"] == np.median(samples)
    assert forward["p95_ns"] == np.percentile(samples, 95)
    assert forward["p99_ns"] is None  # 200 are too few
    assert "p90_ns" not in forward


def test_the_beginning_of_an_id_or_a_path_will_do(stored: Path) -> None:
    (path,) = (stored / "results").glob("*.json")
    for name in (path.stem[:12], path):
        done = run_toolkit("results", "show", name, cwd=stored)
        assert done.returncode == 0, done.stderr
        assert "forward, batch 1" in done.stdout


def test_list_names_them(stored: Path) -> None:
    (path,) = (stored / "results").glob("*.json")
    assert path.stem in run_toolkit("results", "list", cwd=stored).stdout
    listed = json.loads(run_toolkit("results", "list", "--json", cwd=stored).stdout)["results"]
    assert [result["id"] for result in listed] == [path.stem]


def test_an_altered_result_is_refused(stored: Path, toolkit_cli: Run, tmp_path: Path) -> None:
    (path,) = (stored / "results").glob("*.json")
    copy = tmp_path / path.name
    copy.write_text(path.read_text().replace('"batch": 1', '"batch": 2', 1))
    done = toolkit_cli("results", "show", copy)
    assert done.returncode == 3
    assert "was altered" in done.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("show", "nosuch"), "no result in results/"),
        (("show", "nosuch.json"), "nosuch.json"),
        (("show", "2", "--percentiles", "0"), "Got percentile 0"),
        (("show", "2", "--percentiles", "100"), "Got percentile 100"),
        (("show", "2", "--percentiles", "x"), "expected numbers"),
        (("shwo",), "show"),
    ],
)
def test_wrong_use(stored: Path, args: tuple[str, ...], says: str) -> None:
    done = run_toolkit("results", *args, cwd=stored)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr

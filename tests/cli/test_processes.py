"""A row is measured in several processes, one after the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import plugins
from tests.conftest import Run

QUICK = ("--scope", "forward", "--max-seconds", 0.3, "--json")


def stored_rows(place: Path, stdout: str) -> list[dict]:
    return json.loads((place / json.loads(stdout)["result"]).read_text())["rows"]


def processes_of(row: dict) -> set[int]:
    return {block["process"] for block in row["measurements"][0]["blocks"]}


@pytest.mark.parametrize(
    ("asked", "processes"), [((), 4), (("--processes", 2), 2), (("--runs", 20), 1)]
)
def test_the_measuring_is_shared_among_processes(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path, asked: tuple, processes: int
) -> None:
    done = toolkit_cli("bench", artifact_dir, "--runtime", "onnxruntime,null", *QUICK, *asked)
    assert done.returncode == 0, done.stderr
    for row in stored_rows(tmp_path, done.stdout):
        assert processes_of(row) == set(range(processes))
        assert len(row["openings"]) == processes
        rounds = [block["round"] for block in row["measurements"][0]["blocks"]]
        assert rounds == list(range(len(rounds)))


def test_every_second_process_is_opened_in_reverse_order(
    toolkit_cli: Run, artifact_dir: Path
) -> None:
    done = toolkit_cli(
        "bench", artifact_dir, "--runtime", "onnxruntime,null", "--scope", "forward",
        "--runs", 12, "--processes", 3,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    opened = [line.split()[-1] for line in done.stderr.splitlines() if line.startswith("open")]
    assert opened == ["onnxruntime", "null", "null", "onnxruntime", "onnxruntime", "null"]


def test_only_as_many_openings_are_measured_in_as_asked(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path
) -> None:
    done = toolkit_cli(
        "bench", artifact_dir, "--runtime", "null", "--scope", "open,forward", "--runs", 20,
        "--processes", 2, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = stored_rows(tmp_path, done.stdout)
    assert processes_of(row) == {0, 1}
    assert len(row["openings"]) == 5


@pytest.mark.parametrize(
    ("mood", "reason", "processes"),
    [("wrong", "Parity with", {0, 1}), ("refuses", "Not again", {0})],
)
def test_what_fails_in_one_process_fails_the_row(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path, mood: str, reason: str, processes: set
) -> None:
    done = toolkit_cli(
        "bench", artifact_dir, "--runtime", "onnxruntime,moody", *QUICK, "--processes", 2,
        "--option", f"moody.mood={mood}", "--option", f"moody.log={tmp_path / 'log'}",
        env=plugins.install(tmp_path / "site"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    good, moody = stored_rows(tmp_path, done.stdout)
    assert (good["status"], processes_of(good)) == ("ok", {0, 1})
    assert (moody["status"], processes_of(moody)) == ("failed", processes)
    assert reason in moody["reason"]
    report = json.loads(done.stdout)["rows"][1]
    assert report["scopes"]["forward"].get("ratio") is None

"""Damaged and hostile ONNX files: told what is wrong with them, and nothing worse."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.mutants import mutants

COUNT = 200
MOST_BYTES = 1_000_000_000

# One process for all: what a file does to it, the next would show. Prints the outcome of each.
INSPECT = """
import json, sys
from pathlib import Path
import toolkit
from toolkit.core.errors import ToolkitError
from toolkit.core.memory import peak_rss_bytes

outcomes = {}
for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
    try:
        toolkit.inspect(path)
        outcomes[path.name] = "read"
    except ToolkitError as error:
        assert error.problem and error.hint, path
        outcomes[path.name] = type(error).__name__
print(json.dumps({"outcomes": outcomes, "peak": peak_rss_bytes()}))
"""


@pytest.fixture(scope="module")
def damaged(artifact_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("damaged") / "a" / "b"  # ../../ leads to a place of the test's
    place.mkdir(parents=True)
    for name, content in mutants(artifact_dir / "model.onnx", COUNT):
        (place / f"{name}.onnx").write_bytes(content)
    return place


def test_each_is_read_or_refused_and_the_parent_stays_small(damaged: Path) -> None:
    before = sorted(damaged.parents[1].rglob("*"))
    done = subprocess.run(
        [sys.executable, "-P", "-c", INSPECT, damaged],
        capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["outcomes"]) == COUNT
    assert Counter(found["outcomes"].values())["SourceError"] > COUNT / 3
    assert found["peak"] < MOST_BYTES
    assert sorted(damaged.parents[1].rglob("*")) == before


@pytest.mark.parametrize("command", ["export", "bench"])
@pytest.mark.parametrize(
    "what", ["cut", "flipped", "huge-dims", "outside", "cycle", "no-such-operator", "absurd-input"]
)
def test_what_runs_it_ends_in_an_error_or_a_row_with_its_reason(
    toolkit_cli: Run, damaged: Path, tmp_path: Path, what: str, command: str
) -> None:
    path = next(path for path in sorted(damaged.iterdir()) if path.stem.endswith(f"-{what}"))
    args = ("--to", "openvino", "--out", "art") if command == "export" else ("--runs", 5)
    done = toolkit_cli(command, path, *args)
    assert "Traceback" not in done.stderr
    assert "Nobody foresaw" not in done.stderr
    assert done.returncode in (0, 1, 2, 3), done.stderr
    assert {entry.name for entry in tmp_path.iterdir()} <= {"art", "results"}
    if done.returncode:
        assert not (tmp_path / "art").exists()

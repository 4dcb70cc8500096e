"""Damaged and hostile ONNX files: told what is wrong with them, and nothing worse.

All of them are inspected; only some of those that can be read are exported and measured, unless
`make mutants` asks for all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.mutants import mutants

COUNT = 200
RUN = COUNT if os.environ.get("ALL_MUTANTS") else 24
MOST_BYTES = 1_000_000_000

# One process for all: what a file does to it, the next would show. Prints the outcome of each.
EACH = """
import json, sys
from pathlib import Path
import toolkit
from toolkit.core.errors import ToolkitError
from toolkit.core.memory import peak_rss_bytes
from toolkit.measuring.engine import Procedure

def inspect(path, out):
    toolkit.inspect(path)
    return "read"

def export(path, out):
    toolkit.export(path, to="openvino", out=out / path.stem)
    return "exported"

def bench(path, out):
    result = toolkit.bench(path, procedure=Procedure(warmup=0, runs=1), out=out)
    return " ".join(str(row.status) for row in result.rows)

outcomes = {}
for path in map(Path, sys.argv[3:]):
    try:
        outcomes[path.name] = globals()[sys.argv[1]](path, Path(sys.argv[2]))
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


def outcomes_of(command: str, paths: list[Path], out: Path) -> dict[str, str]:
    """Of the command for each; the parent stayed small, and nothing was written but into `out`."""
    place = paths[0].parents[2]
    before = sorted(place.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-P", "-c", EACH, command, out, *paths],
        capture_output=True, text=True, check=False, timeout=3600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["outcomes"]) == len(paths)
    assert found["peak"] < MOST_BYTES
    assert sorted(place.rglob("*")) == before
    return dict(found["outcomes"])


@pytest.fixture(scope="module")
def inspected(damaged: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return outcomes_of("inspect", sorted(damaged.iterdir()), tmp_path_factory.mktemp("out"))


def test_each_is_read_or_refused(inspected: dict[str, str]) -> None:
    assert Counter(inspected.values())["SourceError"] > COUNT / 3


@pytest.mark.parametrize("command", ["export", "bench"])
def test_each_is_run_or_refused(
    damaged: Path, inspected: dict[str, str], tmp_path: Path, command: str
) -> None:
    """Those that can be read, as what cannot has failed at the same step by then."""
    names = sorted(inspected)
    read = [name for name in names if inspected[name] == "read"]
    chosen = names if RUN == COUNT else read[:: max(1, len(read) // RUN)]
    found = outcomes_of(command, [damaged / name for name in chosen], tmp_path)
    if command == "export":
        proved = {name for name, outcome in found.items() if outcome == "exported"}
        assert {path.name for path in tmp_path.iterdir()} == {Path(name).stem for name in proved}
    else:
        assert all(path.suffix == ".json" for path in tmp_path.iterdir())


@pytest.mark.parametrize("command", ["export", "bench"])
@pytest.mark.parametrize("what", ["cut", "huge-dims", "no-such-operator"])
def test_the_command_line_ends_in_an_error_or_a_row_with_its_reason(
    toolkit_cli: Run, damaged: Path, tmp_path: Path, what: str, command: str
) -> None:
    path = next(path for path in sorted(damaged.iterdir()) if path.stem.endswith(f"-{what}"))
    args = ("--to", "openvino", "--out", "art") if command == "export" else ("--runs", 5)
    done = toolkit_cli(command, path, *args)
    assert "Traceback" not in done.stderr
    assert "Unexpected error" not in done.stderr
    assert done.returncode in (0, 1, 2, 3), done.stderr
    assert {entry.name for entry in tmp_path.iterdir()} <= {"art", "results"}
    if done.returncode:
        assert not (tmp_path / "art").exists()

"""Each command starts as users start it: in a new interpreter, with new interpreters as workers.

Elsewhere processes come from the fork server of tests/fork_server.py, where everything is
imported already.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from tests.conftest import Run
from toolkit.cli.main import app

STUDY = """
[[train]]
model = "mlp"
data = "diabetes"
epochs = 1
"""
UNCLEAR = 3  # the exit code of a comparison that noise leaves open
DATA = ("--data", "diabetes")
BRIEF = ("--warmup", 1, "--runs", 11)
COMMANDS = (
    ("train", "mlp", *DATA, "--epochs", 1, "--out", "mlp"),
    ("export", "mlp", "--to", "onnx", "--out", "mlp-onnx"),
    ("parity", "weights", "mlp", "mlp-onnx"),
    ("inspect", "mlp-onnx"),
    ("verify", "mlp-onnx", *DATA, "--runtime", "torch,onnxruntime"),
    ("calibrate", "mlp-onnx", *DATA, "--out", "mlp-int8"),
    ("bench", "mlp-onnx", "--runtime", "onnxruntime", "--processes", 1, *BRIEF),
    ("results", "list"),
    ("compare", "mlp-onnx", "mlp-onnx", "--processes", 1, *BRIEF, "--tolerance", 10),
    ("deploy", "mlp-onnx", "--to", "triton", "--out", "repository"),
    ("study", "run", "study.toml", "--out", "study"),
    ("report", "results", "--out", "report.html"),
    ("models",),
)
ELSEWHERE = {
    "bench-training": "tests/cli/test_bench_training.py",
    "doctor": "tests/cli/test_providers.py",
    "optimize": "tests/cli/test_optimize.py",
}
"""Commands that take long, and the file whose test with the mark `real_start` runs them."""


@pytest.mark.real_start
def test_every_command(toolkit_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    for command, *args in COMMANDS:
        done = toolkit_cli(command, *args)
        allowed = (0, UNCLEAR) if command == "compare" else (0,)
        assert done.returncode in allowed, (command, done.stdout, done.stderr)
    for file in ELSEWHERE.values():
        assert "mark.real_start" in (Path(__file__).parents[2] / file).read_text()
    assert {command for command, *_ in COMMANDS} | set(ELSEWHERE) == set(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.real_start
def test_the_package_is_a_program_as_well(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", "models"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "lenet" in done.stdout

"""Each command starts as users start it: in a new interpreter, with new interpreters as workers.

Elsewhere processes come from the fork server of tests/fork_server.py, where everything is
imported already.
"""

from __future__ import annotations

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
    ("bench", "mlp-onnx", "--runtime", "onnxruntime,openvino", *BRIEF),
    ("results", "list"),
    ("compare", "mlp-onnx", "mlp-onnx", "--max-seconds", 1, "--tolerance", 10),
    ("optimize", "mlp-onnx", "--exact", "--budget", "1s", "--out", "search"),
    ("deploy", "search/bundle", "--to", "folder", "--out", "folder"),
    ("bench-training", "mlp", *DATA, "--trainer", "torch:eager", *BRIEF),
    ("study", "run", "study.toml", "--out", "study"),
    ("report", "results", "--out", "report.html"),
    ("models",),
    ("doctor",),
)


@pytest.mark.real_start
def test_every_command(toolkit_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    for command, *args in COMMANDS:
        done = toolkit_cli(command, *args)
        allowed = (0, UNCLEAR) if command == "compare" else (0,)
        assert done.returncode in allowed, (command, done.stdout, done.stderr)
    assert {command for command, *_ in COMMANDS} == set(get_command(app).commands)  # type: ignore[attr-defined]

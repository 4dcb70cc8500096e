"""--device and --provider: what they choose, what they refuse, and no GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtimes import ACCEPTS, FOR_CUDA
from tests.conftest import Run
from toolkit.core.artifact import Format

QUICK = ("--scope", "forward", "--warmup", 1, "--runs", 12, "--json")
GPU = pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
COMMANDS = {
    "bench": lambda place: ("bench", place),
    "verify": lambda place: ("verify", place, "--data", "digits"),
    "compare": lambda place: ("compare", place, place),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("options", "problem", "hint"),
    [
        (("--device", "cdua"), "no device named 'cdua'", "Did you mean 'cuda'?"),
        (("--provider", "tensorr"), "no execution provider named 'tensorr'", "'tensorrt'?"),
        (
            ("--device", "cuda", "--runtime", "openvino"),
            "openvino does not run on cuda",
            "onnxruntime",
        ),
        (
            ("--provider", "cuda", "--runtime", "torch"),
            "which has no onnxruntime",
            "Name onnxruntime as well",
        ),
        (
            ("--provider", "cpu,cuda", "--device", "cuda"),
            "with --device cuda",
            "Leave --device out",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(
    toolkit_cli: Run, artifact_dir: Path, command: str, options: tuple, problem: str, hint: str
) -> None:
    done = toolkit_cli(*COMMANDS[command](artifact_dir), *options)
    assert done.returncode == 2, done.stderr
    assert problem in done.stderr
    assert hint in done.stderr
    assert not done.stdout


@GPU
def test_every_row_of_a_device_that_is_not_there_is_unavailable(
    toolkit_cli: Run, artifact_dir: Path
) -> None:
    """Those that open the artifact, or the checkpoint that it was made from."""
    done = toolkit_cli("bench", artifact_dir, "--device", "cuda", *QUICK)
    assert done.returncode == 3, done.stderr
    rows = json.loads(done.stdout)["rows"]
    opened = {Format.ONNX, Format.CHECKPOINT}
    assert {row["runtime"] for row in rows} == {name for name in FOR_CUDA if ACCEPTS[name] & opened}
    for row in rows:
        assert (row["status"], row["scopes"]) == ("unavailable", {})
        assert "cannot be used here" in row["reason"]


@GPU
def test_verify_on_a_device_that_is_not_there(toolkit_cli: Run, artifact_dir: Path) -> None:
    done = toolkit_cli(
        "verify", artifact_dir, "--data", "digits", "--device", "cuda",
        "--runtime", "torch,onnxruntime", "--json",
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    rows = json.loads(done.stdout)["rows"]
    found = {row["runtime"]: row for row in rows if row["runtime"].endswith("-cuda")}
    assert set(found) == {"torch-cuda", "onnxruntime-cuda"}
    for row in found.values():
        assert row["status"] == "unavailable"
        assert "cannot be used here" in row["reason"]


@GPU
def test_compare_on_a_device_that_is_not_there(toolkit_cli: Run, artifact_dir: Path) -> None:
    done = toolkit_cli("compare", artifact_dir, artifact_dir, "--provider", "cuda", *QUICK)
    assert done.returncode == 3, done.stderr
    (pair,) = json.loads(done.stdout)["pairs"]
    assert pair["ratio"] is None
    assert "onnxruntime-cuda cannot be used here" in json.dumps(pair)

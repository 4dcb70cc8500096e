"""`make gpu-check`, whose steps are gone through on the CPU as far as they go."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHECK = ROOT / "benchmarks/gpu_check.py"


def check(*arguments: object, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CHECK, *map(str, arguments)],
        env={**os.environ, **({} if path is None else {"PATH": path})},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_rehearsal_goes_through_every_step_and_says_that_it_is_one(tmp_path: Path) -> None:
    out = tmp_path / "report"
    done = check(
        "--rehearse", sys.executable, "--out", out, "--data", "digits", "--epochs", 1,
        "--processes", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = (out / "report.md").read_text()
    assert "No figure below is of a GPU" in report
    for step in ("doctor", "tests", "onnx", "tensorrt-rtx", "bench"):
        assert f"| rehearsal {step} | done |" in report
    assert "| rehearsal training | done |" in report
    assert "| torch:fused |" in report
    assert "| onnxruntime |" in report
    assert "| tensorrt-rtx | unavailable |" in report  # says the doctor, with the reason
    assert "passed" not in report.split("rehearsal tests")[1].partition("\n")[0]  # none could run
    rows = [line for line in report.splitlines() if line.startswith("| onnxruntime | ")]
    assert all("| cpu | float32 |" in line for line in rows[1:])
    with tarfile.open(out.with_suffix(".tar.gz")) as archive:
        names = archive.getnames()
    assert "report/report.md" in names
    assert any(name.startswith("report/results/") for name in names)


def test_without_a_gpu_it_says_what_it_wants(tmp_path: Path) -> None:
    done = check("--out", tmp_path / "report", path=str(tmp_path))
    assert done.returncode == 2
    assert "no NVIDIA driver" in done.stderr
    assert not (tmp_path / "report").exists()


def test_what_is_here_is_checked_and_a_report_says_why_nothing_can_be(tmp_path: Path) -> None:
    command = tmp_path / "nvidia-smi"  # a fake, which lists no GPU
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    out = tmp_path / "report"
    done = check("--here", "--out", out, path=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 1, done.stdout + done.stderr
    report = (out / "report.md").read_text()
    assert "| here doctor | done |" in report
    assert "| here runtimes | FAILED (1)" in report
    assert "| torch-cuda | unavailable |" in report
    assert not (out / "environments").exists()


def test_a_report_that_is_there_is_left_alone(tmp_path: Path) -> None:
    kept = tmp_path / "report"
    kept.mkdir()
    done = check("--rehearse", sys.executable, "--out", kept)
    assert done.returncode == 2
    assert "name another folder" in done.stderr
    assert list(kept.iterdir()) == []


def test_an_unknown_environment_is_refused(tmp_path: Path) -> None:
    done = check("--rehearse", sys.executable, "--only", "tensorrt", "--out", tmp_path / "r")
    assert done.returncode == 2
    assert "no environment tensorrt" in done.stderr

"""What nvidia-smi says of the GPUs. There is none here: a script that only prints stands in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from toolkit.measuring.machine.environment import describe_environment
from toolkit.measuring.machine.gpus import describe_gpus, gpu_warnings

LINE = "NVIDIA GeForce RTX 4060 Ti, 8.9, 8188, 580.65.06, 210, 3105, 165.00, 41, 0, Disabled"
ASKED = (
    "--query-gpu=name,compute_cap,memory.total,driver_version,clocks.sm,clocks.max.sm,power.limit,"
    "temperature.gpu,utilization.gpu,persistence_mode --format=csv,noheader,nounits"
)


@pytest.fixture
def fake_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prints `said` and ends with `code`, if it is asked for what it should be."""
    script = tmp_path / "nvidia-smi"
    script.write_text(
        f'#!/bin/sh\ncd "{tmp_path}"\n[ "$*" = "{ASKED}" ] || exit 64\ncat said; exit $(cat code)\n'
    )
    script.chmod(0o755)
    (tmp_path / "code").write_text("0")
    (tmp_path / "said").write_text(f"{LINE}\n")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_each_gpu_is_told_apart_from_how_it_is_now(fake_nvidia_smi: Path) -> None:
    (fake_nvidia_smi / "said").write_text(f"{LINE}\n{LINE.replace('4060 Ti', '4090')}\n")
    gpus, states = describe_gpus()
    assert [gpu["name"] for gpu in gpus] == [
        "NVIDIA GeForce RTX 4060 Ti",
        "NVIDIA GeForce RTX 4090",
    ]
    assert gpus[0] == {
        "name": "NVIDIA GeForce RTX 4060 Ti",
        "compute_capability": "8.9",
        "memory_mib": "8188",
    }
    assert states[0]["driver"] == "580.65.06"
    assert states[0]["max_sm_clock_mhz"] == "3105"
    assert states[1]["persistence_mode"] == "Disabled"


def test_they_are_part_of_the_environment(fake_nvidia_smi: Path) -> None:
    found = describe_environment()
    assert found["gpus"][0]["compute_capability"] == "8.9"
    assert found["gpu_states"][0]["temperature_c"] == "41"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", "9"),
        ("No devices were found\n", "0"),
        ("", "0"),
    ],
)
def test_a_driver_that_does_not_answer_has_no_gpus(
    fake_nvidia_smi: Path, said: str, code: str
) -> None:
    (fake_nvidia_smi / "said").write_text(said)
    (fake_nvidia_smi / "code").write_text(code)
    assert describe_gpus() == ([], [])


def test_without_nvidia_smi_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert describe_gpus() == ([], [])


def test_a_gpu_that_others_use_is_warned_of(fake_nvidia_smi: Path) -> None:
    assert gpu_warnings(describe_gpus()[1]) == []
    (fake_nvidia_smi / "said").write_text(LINE.replace(", 0, Dis", ", 97, Dis"))
    (warning,) = gpu_warnings(describe_gpus()[1])
    assert "GPU 0 was 97 % busy" in warning
    # What it cannot tell of a GPU it says so.
    (fake_nvidia_smi / "said").write_text(LINE.replace(", 0, Dis", ", [N/A], Dis"))
    assert gpu_warnings(describe_gpus()[1]) == []

"""The description of the machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from toolkit.measuring.machine.environment import available_cores, describe_environment


def test_the_description_has_every_key_and_is_strict_json() -> None:
    described = describe_environment(threads=3)
    assert described.keys() == {
        "cpu",
        "gpus",
        "gpu_states",
        "memory_bytes",
        "memory_available_bytes",
        "load_average",
        "threads",
        "ceilings",
        "platform",
        "python",
        "versions",
        "commit",
        "variables",
    }
    assert described["cpu"].keys() == {
        "model",
        "flags",
        "logical_cores",
        "physical_cores",
        "available_cores",
        "container_cores",
        "governor",
    }
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    assert described["threads"] == 3


def test_the_processor_is_named_with_its_vector_extensions() -> None:
    cpu = describe_environment()["cpu"]
    assert cpu["model"]
    assert cpu["flags"]
    assert "fpu" not in cpu["flags"]


def test_the_commit_is_that_of_the_place_and_says_when_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe_environment()["commit"] is None
    git("init", "--quiet")
    assert describe_environment()["commit"] is None
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "--quiet", "--message", "One")
    head = git("rev-parse", "HEAD")
    git("tag", "v1")
    assert describe_environment()["commit"] == head
    (tmp_path / "file").write_text("2")
    assert describe_environment()["commit"] == f"{head}-dirty"
    monkeypatch.setenv("PATH", "")
    assert describe_environment()["commit"] is None


def test_versions_are_of_what_is_installed() -> None:
    versions = describe_environment()["versions"]
    assert versions["numpy"] == np.__version__
    assert versions["inference-toolkit"]
    assert None not in versions.values()


@pytest.mark.parametrize(
    "name",
    ["OMP_NUM_THREADS", "KMP_AFFINITY", "MKL_DYNAMIC", "CUDA_VISIBLE_DEVICES", "LD_PRELOAD"],
)
def test_a_variable_that_steers_is_recorded(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    assert describe_environment()["variables"][name] == ""
    monkeypatch.delenv(name)
    assert name not in describe_environment()["variables"]


@pytest.mark.parametrize("name", ["SECRET_TOKEN", "OMPX", "NOT_OMP_NUM_THREADS", "TFX_HOME"])
def test_other_variables_are_not(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "value")
    assert name not in describe_environment()["variables"]


def test_no_more_cores_are_available_than_there_are() -> None:
    assert 1 <= available_cores() <= describe_environment()["cpu"]["logical_cores"]

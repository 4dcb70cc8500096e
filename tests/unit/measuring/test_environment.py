"""The description of the machine."""

from __future__ import annotations

import json

import numpy as np
import pytest

from toolkit.measuring.environment import available_cores, describe_environment


def test_the_description_has_every_key_and_is_strict_json() -> None:
    described = describe_environment(threads=3)
    assert described.keys() == {
        "cpu",
        "memory_bytes",
        "memory_available_bytes",
        "load_average",
        "threads",
        "platform",
        "python",
        "versions",
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

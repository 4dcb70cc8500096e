"""What is said of our runtimes without importing them is what they say themselves."""

from __future__ import annotations

import pytest

from runtimes import ACCEPTS, FOR_CUDA, ON_CUDA, PROVIDERS, RUNTIMES
from toolkit.core.errors import UnavailableError
from toolkit.core.session import Runtime

IMPORTED_HERE = {
    "onnxruntime-cuda", "onnxruntime-nv-tensorrt-rtx", "onnxruntime-tensorrt", "torch-compile-cuda",
    "torch-cuda",
}  # fmt: skip


def made(name: str) -> Runtime:
    try:
        return RUNTIMES.create(name)
    except UnavailableError as error:
        if name in IMPORTED_HERE:
            raise
        pytest.skip(error.problem)


@pytest.mark.parametrize("name", sorted(ACCEPTS))
def test_formats_and_device(name: str) -> None:
    runtime = made(name)
    assert runtime.name == name
    assert runtime.accepts == ACCEPTS[name]
    assert runtime.device == ("cuda" if name in FOR_CUDA else "cpu")


def test_the_names_in_the_tables_are_registered() -> None:
    registered = set(RUNTIMES.names())
    assert {*ACCEPTS, *FOR_CUDA, *ON_CUDA, *ON_CUDA.values(), *PROVIDERS.values()} <= registered
    assert set(ACCEPTS) >= FOR_CUDA


@pytest.mark.parametrize("name", sorted(FOR_CUDA))
def test_a_probe_says_the_reason_and_what_to_do(name: str) -> None:
    """Or that all is there; and it never raises."""
    found = made(name).probe()
    assert found.version or not found.ok
    assert found.ok or (found.reason and found.hint)

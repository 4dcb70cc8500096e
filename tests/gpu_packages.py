"""Where the packages for a GPU are, for the tests that import them: `make gpu-packages` puts them
there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def gpu_package(name: str) -> Path:
    """The folder of a line of gpu-packages.txt, which goes into a process through PYTHONPATH.

    Without it the test is skipped; in a CI, where that hides it, it fails.
    """
    place = _place(name)
    if not place.is_dir():
        assert "CI" not in os.environ, "run make gpu-packages before the tests"
        pytest.skip("no .gpu-packages: run make gpu-packages")
    return place


def built_pycuda() -> Path:
    """The folder of PyCUDA, which `make pycuda` builds. Without it the test is skipped."""
    place = _place("pycuda")
    if not place.is_dir():
        pytest.skip("no .gpu-packages/pycuda: run make pycuda")
    return place


def _place(name: str) -> Path:
    return Path(os.environ.get("GPU_PACKAGES", ROOT / ".gpu-packages")) / name

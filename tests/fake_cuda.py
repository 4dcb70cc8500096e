"""A driver that has no GPU: tests/fake_libcuda.c, compiled once a session."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("fake_libcuda.c")
NAME = "Fake GPU (host memory)"


def fake_cuda(**settings: object) -> dict[str, str]:
    """The environment of a process that finds the fake driver.

    `settings` are those of fake_libcuda.c without their prefix, in small letters: capability=90,
    driver=12090, memory=1 << 20, log=path. See `no_gpu` for a driver without a GPU.
    """
    named = {f"FAKE_CUDA_{key.upper()}": str(value) for key, value in settings.items()}
    return {**_found(), **named}


def no_gpu() -> dict[str, str]:
    """The environment in which there is a driver that says CUDA_ERROR_NO_DEVICE."""
    return {**_found(), "FAKE_CUDA": "no-device"}


def _found() -> Mapping[str, str]:
    places = [str(_library().parent), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(places)}


@functools.cache
def _library() -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        assert "CI" not in os.environ, "a C compiler is needed for the tests of GPU code"
        pytest.skip("no C compiler (cc)")
    place = Path(tempfile.mkdtemp(prefix="toolkit-fake-cuda-")) / "libcuda.so.1"
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
    subprocess.run([compiler, *flags, "-o", place, SOURCE, "-ldl"], check=True)
    return place

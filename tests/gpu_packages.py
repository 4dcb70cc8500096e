"""Where the packages for a GPU are, for the tests that import them: `make gpu-packages` puts them
there."""

from __future__ import annotations

import os
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def gpu_package(name: str) -> Path:
    """Return the folder of the dependency group gpu-NAME, for the PYTHONPATH of a process.

    Without it the test is skipped; in a CI, where that hides it, it fails.
    """
    place = _place(name)
    if not place.is_dir():
        assert "CI" not in os.environ, "run make gpu-packages before the tests"
        pytest.skip("no .gpu-packages: run make gpu-packages")
    return place


def environment(place: Path, *packages: Path, without: tuple[str, ...]) -> Path:
    """Makes a virtual environment of links in `place`, and gives its Python.

    It has the packages of these folders and, of those of the tests, all but those whose names start
    with one of `without`: so that nothing is there which PYTHONPATH only hides.
    """
    venv.create(place, with_pip=False, symlinks=True)
    site = next(place.glob("lib/python*/site-packages"))
    ours = Path(sysconfig.get_paths()["purelib"])
    kept = [path for path in ours.iterdir() if not path.name.lower().startswith(without)]
    for path in (*(path for folder in packages for path in folder.iterdir()), *kept):
        if not (site / path.name).is_symlink():
            (site / path.name).symlink_to(path.resolve())
    return place / "bin" / "python"


def built_pycuda() -> Path:
    """The folder of PyCUDA, which `make pycuda` builds. Without it as of any other package."""
    place = _place("pycuda")
    if not place.is_dir():
        assert "CI" not in os.environ, "run make pycuda before the tests"
        pytest.skip("no .gpu-packages/pycuda: run make pycuda")
    return place


def _place(name: str) -> Path:
    return Path(os.environ.get("GPU_PACKAGES", ROOT / ".gpu-packages")) / name

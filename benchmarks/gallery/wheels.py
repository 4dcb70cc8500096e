"""Wheels from PyPI with ONNX files that others made."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / ".gallery"


def unpacked_wheels() -> Path:
    """Return the folder with the files of the wheels in the lock, which are downloaded once."""
    place = STORE / "wheels"
    done = place / ".done"
    lock = ROOT / "locks" / "gallery-wheels.txt"
    if not done.exists() or done.read_text() != lock.read_text():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps",
             "--dest", str(place), "--requirement", str(lock)],
            check=True,
        )  # fmt: skip
        for wheel in place.glob("*.whl"):
            shutil.unpack_archive(wheel, place, "zip")
            wheel.unlink()
        done.write_text(lock.read_text())
    return place

"""What a process needs to have NVIDIA Tripy without a GPU: the real package, on a double of its
compiled half."""

from __future__ import annotations

import os
from pathlib import Path

from tests.gpu_packages import gpu_package

ROOT = Path(__file__).parents[1]
DOUBLE = ROOT / "tests" / "doubles" / "tripy"


def tripy_env() -> dict[str, str]:
    """Skips the test where the package is not there."""
    paths = (DOUBLE, gpu_package("tripy"), ROOT, os.environ.get("PYTHONPATH"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path)}

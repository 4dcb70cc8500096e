"""Where MXNet's interpreter is, for the tests that need it: `make mxnet-env` makes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def mxnet_python() -> str:
    """The interpreter. Without one the test is skipped; in a CI, where that hides it, it fails."""
    python = ROOT / ".venv-mxnet/bin/python"
    if not python.exists():
        assert "CI" not in os.environ, "run make mxnet-env before the tests"
        pytest.skip("no .venv-mxnet: run make mxnet-env")
    return str(python)

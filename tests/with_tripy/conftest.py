"""Tests that import nvtripy. tests/unit/test_with_tripy.py runs them in a process that has it."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("nvtripy") else ["test_*.py"]

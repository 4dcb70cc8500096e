"""Runs the tests of NVIDIA Tripy, on a double of its compiled half, in a process of their own:
nvtripy cannot be installed in .venv, and the double of its `tensorrt` must not be."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.tripy_env import ROOT, tripy_env

LEAST = 60  # tests, so that none can get lost in silence
# nvtripy leaves the files to which it sends standard error for the garbage collector to close.
OPTIONS = ("-W", "ignore::ResourceWarning", "-p", "no:xdist", "-p", "no:cacheprovider")


def test_tripy() -> None:
    env = tripy_env()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/with_tripy", *OPTIONS],
        cwd=ROOT,
        env={name: value for name, value in env.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout.splitlines()[-1]
    passed = re.search(r"(\d+) passed", told)
    assert passed, told
    assert int(passed[1]) >= LEAST, told
    assert not re.search("skip|fail|error", told), told

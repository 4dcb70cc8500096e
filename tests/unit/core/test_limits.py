"""Limits of memory, processor time and file size within a block."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from toolkit.core.limits import MEMORY_BYTES, Limits, limit_reached
from toolkit.core.memory import available_bytes

NAMES = (resource.RLIMIT_DATA, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE)
BURN = """
from toolkit.core.limits import Limits
with Limits(memory_bytes=1 << 30, cpu_s=0.1).applied():
    while True:
        pass
"""


def test_memory_is_limited_within_the_block_alone() -> None:
    before = [resource.getrlimit(name) for name in NAMES]
    with Limits(memory_bytes=64 << 20).applied():
        assert np.ones(1 << 20).sum() == 1 << 20  # 8 MB
        with pytest.raises(MemoryError) as caught:
            np.ones(1 << 27)  # 1 GB
    assert [resource.getrlimit(name) for name in NAMES] == before
    assert limit_reached(caught.value) == "memory"


def test_the_size_of_a_file_is_limited(tmp_path: Path) -> None:
    limits = Limits(memory_bytes=1 << 30, file_bytes=1 << 20)
    with limits.applied(), pytest.raises(OSError, match="too large") as caught:
        (tmp_path / "large").write_bytes(bytes(2 << 20))
    assert limit_reached(caught.value) == "file size"


def test_processor_time_is_limited() -> None:
    done = subprocess.run([sys.executable, "-P", "-c", BURN], check=False)
    assert done.returncode == -signal.SIGXCPU


def test_a_limit_of_the_caller_is_kept() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with Limits(memory_bytes=1 << 30, file_bytes=1 << 30).applied():
            assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == 1 << 20
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_limits_for_reading_grow_with_the_file_up_to_what_is_left() -> None:
    small, larger = (Limits.for_reading(size, 10, 2) for size in (0, 1 << 20))
    assert small.memory_bytes == min(MEMORY_BYTES, larger.memory_bytes)
    assert small.cpu_s == 20
    assert Limits.for_reading(1 << 60, 10, 2).memory_bytes < available_bytes()


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("std::bad_alloc"), RuntimeError("can't allocate memory: ...")],
)
def test_a_failed_allocation_is_recognised_behind_another_error(error: Exception) -> None:
    outer = ValueError("not a model")
    outer.__cause__ = error
    assert limit_reached(outer) == "memory"
    assert limit_reached(ValueError("not a model")) is None

"""The driver that stands in for NVIDIA's, through cuda-bindings and through our own look at it:
what it is relied on for in other tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.fake_cuda import NAME, fake_cuda, no_gpu

START = """
from cuda.bindings import driver as cuda
def done(found):
    assert not found[0], found
    return found[1] if len(found) == 2 else found[1:]
done(cuda.cuInit(0))
context = done(cuda.cuDevicePrimaryCtxRetain(0))
done(cuda.cuCtxSetCurrent(context))
"""


def told(code: str, env: Mapping[str, str]) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_our_own_look_at_the_driver_finds_it() -> None:
    code = "from toolkit.core import nvidia; print(nvidia.driver())"
    found = told(code, fake_cuda(capability=90, memory=1 << 20, driver=12090))
    gpu = f"Gpu(name={NAME!r}, capability=90, memory_bytes=1048576)"
    assert found == f"Driver(version='12.9', gpus=({gpu},), reason=None)"
    assert "CUDA_ERROR_NO_DEVICE (100)" in told(code, no_gpu())


def test_a_stream_does_its_work_no_sooner_than_it_is_waited_for() -> None:
    pytest.importorskip("cuda.bindings")
    code = f"""{START}
import numpy as np
stream = done(cuda.cuStreamCreate(0))
address = done(cuda.cuMemAlloc(16))
given, back = np.arange(4, dtype=np.float32), np.zeros(4, np.float32)
done(cuda.cuMemcpyHtoDAsync(address, given.ctypes.data, 16, stream))
done(cuda.cuMemcpyDtoHAsync(back.ctypes.data, address, 16, stream))
assert not back.any()
given[0] = 7  # too soon: the copy is still to come
done(cuda.cuStreamSynchronize(stream))
print(back)
"""
    assert told(code, fake_cuda()) == "[7. 1. 2. 3.]"


def test_memory_has_an_end_and_what_lies_beyond_it_is_not_copied() -> None:
    pytest.importorskip("cuda.bindings")
    code = f"""{START}
print(cuda.cuMemAlloc(2 << 20)[0].name)
address = done(cuda.cuMemAlloc(1 << 19))
print(cuda.cuMemcpyHtoDAsync(int(address) + 8, bytes(1 << 19), 1 << 19, 0)[0].name)
done(cuda.cuMemFree(address))
print(cuda.cuMemFree(address)[0].name)
"""
    assert told(code, fake_cuda(memory=1 << 20)).split() == [
        "CUDA_ERROR_OUT_OF_MEMORY",
        "CUDA_ERROR_INVALID_VALUE",
        "CUDA_ERROR_INVALID_VALUE",
    ]

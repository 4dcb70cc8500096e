"""Both ways to device memory, each against the driver that stands in for NVIDIA's.

What they ask of a driver is what a real one does too; how fast, and whether on a GPU, is not shown.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.fake_cuda import NAME, fake_cuda, no_gpu
from tests.gpu_packages import built_pycuda, gpu_package

START = """
import ctypes, os, sys, threading
sys.setdlopenflags(os.RTLD_LAZY)  # PyCUDA names calls that the driver of the tests lacks
import numpy as np
from runtimes.cuda.device import missing_packages, open_device
from toolkit.core.errors import ToolkitError
def refusal(name):
    try:
        open_device(name)
    except ToolkitError as error:
        print(type(error).__name__, "no GPU" in error.problem, "nvidia-smi" in error.hint)
def left():
    library = ctypes.CDLL("libcuda.so.1")
    names = ("device_bytes", "blocks", "streams", "events")
    return [getattr(library, f"fake_{name}")() for name in names]
"""
PACKAGES = {
    "cuda-bindings": ("cuda-bindings", None),
    "cuda-bindings 12": ("cuda-bindings", "cuda-12"),
    "pycuda": ("pycuda", "pycuda"),
}


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> tuple[str, dict[str, str]]:
    """The name of a package, and the environment that it is found in."""
    name, place = PACKAGES[request.param]
    if place is None:
        pytest.importorskip("cuda.bindings")
        return name, {}
    found = built_pycuda() if place == "pycuda" else gpu_package(place)
    places = [str(found), *filter(None, [os.environ.get("PYTHONPATH")])]
    return name, {"PYTHONPATH": os.pathsep.join(places)}


def told(code: str, *envs: Mapping[str, str]) -> list[str]:
    env = {name: value for given in envs for name, value in given.items()}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", START + code],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_copies_go_there_and_back_in_order(package: tuple[str, dict[str, str]]) -> None:
    name, env = package
    code = f"""
device = open_device({name!r})
print(device.package, "|", device.gpu, "|", device.capability)
size = 4096
address = device.allocate(size)
there, back = device.allocate_pinned(size), device.allocate_pinned(size)
there[:] = np.arange(size) % 251
device.to_device(address, there)
device.to_host(back, address)
assert not np.array_equal(there, back)
device.synchronize()
assert np.array_equal(there, back)
there.view(np.float32).reshape(32, 32)[:] = 7
device.to_device(address, there.view(np.float32).reshape(32, 32))
device.to_host(back, address)
device.synchronize()
print(back.view(np.float32)[-1])
print(left()[:3])
device.free(address), device.free_pinned(there), device.free_pinned(back)
del there, back
device.close()
device.close()
print(left())
print(ctypes.CDLL("libcuda.so.1").fake_contexts())
"""
    assert told(code, fake_cuda(), env) == [
        f"{name} | {NAME} | 89",
        "7.0",
        "[4096, 3, 1]",
        "[0, 0, 0, 0]",
        "1" if name == "pycuda" else "0",
    ]


def test_events_read_the_clock_of_the_stream(package: tuple[str, dict[str, str]]) -> None:
    name, env = package
    code = f"""
device = open_device({name!r})
start, end = device.event(), device.event()
pause = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: __import__("time").sleep(0.02))
handle = ctypes.c_void_p(device.stream)
device.record(start)
assert not ctypes.CDLL("libcuda.so.1").cuLaunchHostFunc(handle, pause, None)
device.record(end)
device.synchronize()
print(20 <= device.elapsed_ms(start, end) < 2000)
device.close()
del start, end
print(left())
"""
    assert told(code, fake_cuda(), env) == ["True", "[0, 0, 0, 0]"]


def test_any_thread_may_use_it(package: tuple[str, dict[str, str]]) -> None:
    name, env = package
    code = f"""
device = open_device({name!r})
def work():
    address, array = device.allocate(16), device.allocate_pinned(16)
    array[:] = 3
    device.to_device(address, array)
    device.to_host(array, address)
    device.synchronize()
    device.free(address), device.free_pinned(array)
    done.append(1)
done = []
for target in (work, work, device.close):
    thread = threading.Thread(target=target)
    thread.start(), thread.join()
print(len(done), left())
"""
    assert told(code, fake_cuda(), env) == ["2 [0, 0, 0, 0]"]


def test_memory_that_is_not_there_is_an_error(package: tuple[str, dict[str, str]]) -> None:
    name, env = package
    code = f"""
device = open_device({name!r})
try:
    device.allocate(2 << 20)
except ToolkitError as error:
    print(type(error).__name__, "memory" in error.problem.lower(), "smaller batch" in error.hint)
device.close()
print(left())
"""
    found = told(code, fake_cuda(memory=1 << 20), env)
    assert found == ["SessionError True True", "[0, 0, 0, 0]"]


def test_a_driver_without_a_gpu_makes_it_unavailable(package: tuple[str, dict[str, str]]) -> None:
    name, env = package
    assert told(f"refusal({name!r})", no_gpu(), env) == ["UnavailableError True True"]


def test_no_driver_makes_it_unavailable(package: tuple[str, dict[str, str]]) -> None:
    """With PyCUDA the import fails, which says what is missing."""
    name, env = package
    found = told(f"refusal({name!r})", os.environ, env)
    assert found == [f"UnavailableError {name != 'pycuda'} {name != 'pycuda'}"]


def test_the_first_that_is_installed_is_taken_and_both_are_named_where_none_is() -> None:
    pytest.importorskip("cuda.bindings")
    code = "print(missing_packages(), open_device().package)"
    assert told(code, fake_cuda()) == ["None cuda-bindings"]
    code = """
sys.modules["cuda"] = sys.modules["pycuda"] = None
for reason in missing_packages(): print(reason.split(":")[0])
try: open_device()
except ToolkitError as error: print(error.hint)
try: open_device("cupy")
except ToolkitError as error: print(error.problem)
"""
    assert told(code, fake_cuda()) == [
        "cuda-bindings cannot be imported",
        "pycuda cannot be imported",
        "Install what it needs: pip install cuda-bindings",
        "There is no package for device memory named 'cupy'.",
    ]

"""Device memory, streams and events of a real driver: `make gpu-check` runs this.

Without a GPU all of it is skipped, with the reason; so is a package that is not there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from runtimes.cuda.device import DEVICES, CudaDevice, open_device
from toolkit.core.errors import SessionError, UnavailableError
from toolkit.core.nvidia import driver

SIZE = 64 << 20
TOO_LARGE = 1 << 50


@pytest.fixture(params=DEVICES.names())
def device(request: pytest.FixtureRequest) -> Iterator[CudaDevice]:
    if reason := driver().reason:
        pytest.skip(reason)
    try:
        opened = open_device(request.param)
    except UnavailableError as error:
        pytest.skip(error.problem)
    yield opened
    opened.close()


def test_it_is_the_gpu_that_the_driver_lists(device: CudaDevice) -> None:
    first = driver().gpus[0]
    assert (device.gpu, device.capability) == (first.name, first.capability)


def test_copies_go_there_and_back_and_events_time_them(device: CudaDevice) -> None:
    address = device.allocate(SIZE)
    there, back = device.allocate_pinned(SIZE), device.allocate_pinned(SIZE)
    there[:] = np.arange(SIZE) % 251
    back[:] = 0
    start, end = device.event(), device.event()
    device.record(start)
    device.to_device(address, there)
    device.record(end)
    device.to_host(back, address)
    device.synchronize()
    np.testing.assert_array_equal(back, there)
    assert 0.01 < device.elapsed_ms(start, end) < 1000  # 64 MiB via PCIe
    device.free_pinned(there)
    device.free_pinned(back)
    device.free(address)


def test_it_can_be_used_from_another_thread(device: CudaDevice) -> None:
    found = []

    def work() -> None:
        address, array = device.allocate(16), np.arange(4, dtype=np.float32)
        back = np.zeros_like(array)
        device.to_device(address, array)
        device.to_host(back, address)
        device.synchronize()
        device.free(address)
        found.append(back)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0], [0, 1, 2, 3])


def test_too_much_memory_is_refused_and_the_device_goes_on(device: CudaDevice) -> None:
    with pytest.raises(SessionError, match="smaller batch") as caught:
        device.allocate(TOO_LARGE)
    assert "memory" in caught.value.problem.lower()
    device.free(device.allocate(16))

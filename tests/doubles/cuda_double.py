"""A GPU whose memory is the host's, in this process.

What a stream is given waits until the stream is waited for."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from runtimes.cuda.device import CudaDevice, refused

STREAMS: dict[int, FakeCudaDevice] = {}


class FakeCudaDevice(CudaDevice):
    """Keeps every call; `failing` is the number of the allocation that there is no memory for."""

    package: ClassVar[str] = "fake"

    def __init__(self, capability: int = 89, failing: int | None = None) -> None:
        self.gpu = "Fake GPU (host memory)"
        self.capability = capability
        self.stream = 1 + max(STREAMS, default=0)
        self.calls: list[tuple[Any, ...]] = []
        self.closed = 0
        self._failing = failing
        self._allocations = 0
        self._held: dict[int, Any] = {}
        self._queue: list[Callable[[], None]] = []
        STREAMS[self.stream] = self

    @property
    def held(self) -> int:
        """How many pieces of memory were not given back."""
        return len(self._held)

    def enqueue(self, work: Callable[[], None]) -> None:
        self._queue.append(work)

    def _allocated(self, size: int) -> int:
        self._allocations += 1
        if self._allocations == self._failing:
            raise refused("cuMemAlloc", "CUDA_ERROR_OUT_OF_MEMORY (2)")
        assert size > 0
        memory = (ctypes.c_uint8 * size)(*b"\xa5" * min(size, 64))
        self._held[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def _freed(self, address: int) -> None:
        assert not self._queue, "memory is freed that work was enqueued on"
        del self._held[address]

    def allocate(self, size: int) -> int:
        return self._allocated(size)

    def free(self, address: int) -> None:
        self._freed(address)

    def allocate_pinned(self, size: int) -> np.ndarray:
        return np.ctypeslib.as_array(self._held[self._allocated(size)])

    def free_pinned(self, array: np.ndarray) -> None:
        self._freed(array.ctypes.data)

    def to_device(self, address: int, array: np.ndarray) -> None:
        self.calls.append(("to_device", array.nbytes))
        self._copy(address, array.ctypes.data, array)

    def to_host(self, array: np.ndarray, address: int) -> None:
        self.calls.append(("to_host", array.nbytes))
        self._copy(array.ctypes.data, address, array)

    def _copy(self, to: int, given: int, array: np.ndarray) -> None:
        assert array.flags.c_contiguous
        assert array.nbytes <= min(len(self._held[to]), len(self._held[given]))
        size = array.nbytes  # the array itself is not held on to, as on a real one
        self.enqueue(lambda: ctypes.memmove(to, given, size) and None)

    def event(self) -> dict[str, float]:
        return {}

    def record(self, event: dict[str, float]) -> None:
        event.clear()
        self.enqueue(lambda: event.update(ms=1e3 * time.monotonic()))

    def elapsed_ms(self, start: dict[str, float], end: dict[str, float]) -> float:
        return end["ms"] - start["ms"]

    def synchronize(self) -> None:
        self.calls.append(("synchronize",))
        queue, self._queue = self._queue, []
        for work in queue:
            work()

    def close(self) -> None:
        self.closed += 1
        STREAMS.pop(self.stream, None)

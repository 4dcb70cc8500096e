"""CUDA device via PyCUDA."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, final

import numpy as np
import pycuda.driver as cuda

from runtimes.cuda.device import CudaDevice, refused
from toolkit.core.errors import UnavailableError
from toolkit.core.nvidia import NO_DRIVER

FIRST = 0


@functools.cache
def _primary_context() -> Any:
    """Return the primary context, which stays retained until the process ends.

    PyCUDA releases it only in the thread that retained it, and leaves it current in that thread.
    """
    return cuda.Device(FIRST).retain_primary_context()


@final
class CudaByPycuda(CudaDevice):
    """GPU via PyCUDA, which frees memory without references, so references are kept by address."""

    package: ClassVar[str] = "pycuda"

    def __init__(self) -> None:
        self._open = False
        try:
            cuda.init()
            device = cuda.Device(FIRST)
        except cuda.Error as error:
            raise UnavailableError(f"There is no GPU: {error}", hint=NO_DRIVER) from error
        self.gpu = device.name()
        major, minor = device.compute_capability()
        self.capability = 10 * major + minor
        self._memory: dict[int, Any] = {}
        self._pinned: dict[int, Any] = {}
        self._events: list[Any] = []
        self._context = _primary_context()
        with self._entered("Stream"):
            self._stream: Any = cuda.Stream()
        self.stream = self._stream.handle
        self._open = True

    @contextmanager
    def _entered(self, call: str) -> Iterator[None]:
        """Make the context current for this thread, and convert driver errors to SessionError."""
        try:
            self._context.push()
        except cuda.Error as error:
            raise refused("Context.push", str(error)) from error
        try:
            yield
        except cuda.Error as error:
            raise refused(call, str(error)) from error
        finally:
            self._context.pop()

    def allocate(self, size: int) -> int:
        with self._entered("mem_alloc"):
            memory = cuda.mem_alloc(size)
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        with self._entered("DeviceAllocation.free"):
            self._memory.pop(address).free()

    def allocate_pinned(self, size: int) -> np.ndarray:
        with self._entered("pagelocked_empty"):
            array: np.ndarray = cuda.pagelocked_empty(size, np.uint8)
        self._pinned[array.ctypes.data] = array.base
        return array

    def free_pinned(self, array: np.ndarray) -> None:
        with self._entered("PagelockedHostAllocation.free"):
            self._pinned.pop(array.ctypes.data).free()

    def to_device(self, address: int, array: np.ndarray) -> None:
        with self._entered("memcpy_htod_async"):
            cuda.memcpy_htod_async(address, array, self._stream)

    def to_host(self, array: np.ndarray, address: int) -> None:
        with self._entered("memcpy_dtoh_async"):
            cuda.memcpy_dtoh_async(array, address, self._stream)

    def event(self) -> Any:
        with self._entered("Event"):
            self._events.append(cuda.Event())
        return self._events[-1]

    def record(self, event: Any) -> None:
        with self._entered("Event.record"):
            event.record(self._stream)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        with self._entered("Event.time_since"):
            return float(end.time_since(start))

    def synchronize(self) -> None:
        with self._entered("Stream.synchronize"):
            self._stream.synchronize()

    def close(self) -> None:
        if self._open:
            self._open = False
            with self._entered("close"):
                self._stream = None
                self._events.clear()

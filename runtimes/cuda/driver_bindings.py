"""CUDA device via NVIDIA's cuda-bindings, which has the driver's calls under their C names."""

from __future__ import annotations

import ctypes
import threading
from typing import Any, ClassVar, final

import numpy as np
from cuda.bindings import driver as cuda

from runtimes.cuda.device import CudaDevice, refused
from toolkit.core.errors import SessionError, UnavailableError
from toolkit.core.nvidia import NO_DRIVER

FIRST = 0
NAME_BYTES = 256
MAJOR = cuda.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
MINOR = cuda.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
NOT_BLOCKING = cuda.CUstream_flags.CU_STREAM_NON_BLOCKING
TIMING = cuda.CUevent_flags.CU_EVENT_DEFAULT


@final
class CudaByBindings(CudaDevice):
    package: ClassVar[str] = "cuda-bindings"

    def __init__(self) -> None:
        self._open = False
        self._events: list[Any] = []
        try:
            _done(cuda.cuInit(0), "cuInit")
        except (SessionError, RuntimeError) as error:  # RuntimeError without a driver
            told = getattr(error, "problem", str(error))
            raise UnavailableError(f"There is no GPU: {told}", hint=NO_DRIVER) from error
        self._device = _done(cuda.cuDeviceGet(FIRST), "cuDeviceGet")
        name = _done(cuda.cuDeviceGetName(NAME_BYTES, self._device), "cuDeviceGetName")
        self.gpu = name.rstrip(b"\0 ").decode(errors="replace")
        self.capability = 10 * self._attribute(MAJOR) + self._attribute(MINOR)
        context = cuda.cuDevicePrimaryCtxRetain(self._device)
        self._context = _done(context, "cuDevicePrimaryCtxRetain")
        self._thread = threading.local()
        self._open = True
        try:
            self._enter()
            self._stream = _done(cuda.cuStreamCreate(int(NOT_BLOCKING)), "cuStreamCreate")
        except BaseException:
            cuda.cuDevicePrimaryCtxRelease(self._device)
            raise
        self.stream = int(self._stream)

    def _attribute(self, which: Any) -> int:
        return int(_done(cuda.cuDeviceGetAttribute(which, self._device), "cuDeviceGetAttribute"))

    def _enter(self) -> None:
        """Make the context current for this thread; each thread has its own current context."""
        if not hasattr(self._thread, "entered"):
            _done(cuda.cuCtxSetCurrent(self._context), "cuCtxSetCurrent")
            self._thread.entered = True

    def allocate(self, size: int) -> int:
        self._enter()
        return int(_done(cuda.cuMemAlloc(size), "cuMemAlloc"))

    def free(self, address: int) -> None:
        self._enter()
        _done(cuda.cuMemFree(address), "cuMemFree")

    def allocate_pinned(self, size: int) -> np.ndarray:
        self._enter()
        address = int(_done(cuda.cuMemHostAlloc(size, 0), "cuMemHostAlloc"))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def free_pinned(self, array: np.ndarray) -> None:
        self._enter()
        _done(cuda.cuMemFreeHost(array.ctypes.data), "cuMemFreeHost")

    def to_device(self, address: int, array: np.ndarray) -> None:
        self._enter()
        found = cuda.cuMemcpyHtoDAsync(address, array.ctypes.data, array.nbytes, self._stream)
        _done(found, "cuMemcpyHtoDAsync")

    def to_host(self, array: np.ndarray, address: int) -> None:
        self._enter()
        found = cuda.cuMemcpyDtoHAsync(array.ctypes.data, address, array.nbytes, self._stream)
        _done(found, "cuMemcpyDtoHAsync")

    def event(self) -> Any:
        self._enter()
        self._events.append(_done(cuda.cuEventCreate(int(TIMING)), "cuEventCreate"))
        return self._events[-1]

    def record(self, event: Any) -> None:
        self._enter()
        _done(cuda.cuEventRecord(event, self._stream), "cuEventRecord")

    def elapsed_ms(self, start: Any, end: Any) -> float:
        self._enter()
        return float(_done(cuda.cuEventElapsedTime(start, end), "cuEventElapsedTime"))

    def synchronize(self) -> None:
        _done(cuda.cuStreamSynchronize(self._stream), "cuStreamSynchronize")

    def close(self) -> None:
        if self._open:
            self._open = False
            self._enter()
            for event in self._events:
                _done(cuda.cuEventDestroy(event), "cuEventDestroy")
            _done(cuda.cuStreamDestroy(self._stream), "cuStreamDestroy")
            _done(cuda.cuDevicePrimaryCtxRelease(self._device), "cuDevicePrimaryCtxRelease")


def _done(found: tuple[Any, ...], call: str) -> Any:
    """Return the value of a driver call. Raise SessionError if it has an error code."""
    code, *values = found
    if code != cuda.CUresult.CUDA_SUCCESS:
        raise refused(call, f"{code.name} ({int(code)})")
    return values[0] if values else None

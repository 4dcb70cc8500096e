"""Interface for device memory, a stream and events of a GPU, via cuda-bindings or PyCUDA."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from toolkit.core.errors import SessionError
from toolkit.core.registry import Entry, Registry


class CudaDevice(ABC):
    """First GPU of this process, with a stream of its own, via the Python package `package`.

    It uses the primary context, as other libraries do. Any thread may use it, but only one at a
    time. The constructor raises UnavailableError if there is no GPU; every other call raises
    SessionError if the driver reports an error.
    """

    package: ClassVar[str]
    gpu: str
    capability: int
    """Compute capability: 89 is 8.9."""
    stream: int
    """Handle of the stream, for libraries that enqueue on it."""

    @abstractmethod
    def allocate(self, size: int) -> int:
        """Allocate `size` bytes of device memory and return their address."""

    @abstractmethod
    def free(self, address: int) -> None:
        """Free memory that `allocate` returned."""

    @abstractmethod
    def allocate_pinned(self, size: int) -> np.ndarray:
        """Allocate and return pinned host memory as uint8 [size], for copies without staging."""

    @abstractmethod
    def free_pinned(self, array: np.ndarray) -> None:
        """Free an array of `allocate_pinned`; no view of it may be used afterwards."""

    @abstractmethod
    def to_device(self, address: int, array: np.ndarray) -> None:
        """Enqueue a copy from a contiguous array, which must not change before `synchronize`."""

    @abstractmethod
    def to_host(self, array: np.ndarray, address: int) -> None:
        """Enqueue a copy to a contiguous array, which is complete after `synchronize`."""

    @abstractmethod
    def event(self) -> Any:
        """Create an event for marking a point on the stream; it is freed with the device."""

    @abstractmethod
    def record(self, event: Any) -> None:
        """Enqueue the event on the stream."""

    @abstractmethod
    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Return the time between two recorded events in ms; call it after `synchronize`."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for everything that was enqueued."""

    @abstractmethod
    def close(self) -> None:
        """Free the stream and the events. May be called again."""


DEVICES: Registry[CudaDevice] = Registry(
    "package for device memory",
    {
        "cuda-bindings": Entry(
            "runtimes.cuda.driver_bindings:CudaByBindings", command="pip install cuda-bindings"
        ),
        "pycuda": Entry("runtimes.cuda.pycuda:CudaByPycuda", command="pip install pycuda"),
    },
)
"""Devices by package, in order of preference."""


def missing_packages() -> list[str] | None:
    """Return a reason per package why it cannot be imported; None if any can be."""
    reasons = [reason for name in DEVICES.names() if (reason := _missing(name))]
    return reasons if len(reasons) == len(DEVICES.names()) else None


def open_device(package: str | None = None) -> CudaDevice:
    """Open the GPU with `package`, or with the first package that can be imported.

    Raise UnknownNameError for an unknown package, and UnavailableError if there is no package or
    no GPU.
    """
    names = DEVICES.names()
    found = next((name for name in names if not _missing(name)), names[0])
    return DEVICES.create(found if package is None else package)


def _missing(package: str) -> str | None:
    try:
        importlib.import_module(DEVICES.entry(package).target.partition(":")[0])
    except (ImportError, OSError, RuntimeError) as error:  # also if partly installed
        return f"{package} cannot be imported: {error}"
    return None


def refused(call: str, told: str) -> SessionError:
    """Return the error for a failed driver call; `told` is what the driver reported."""
    if "OUT_OF_MEMORY" in told or "out of memory" in told:
        hint = "Give a smaller batch, or end what else uses the GPU (`nvidia-smi` lists it)."
    else:
        hint = "`nvidia-smi` says whether the GPU is well; after a fault, start a new process."
    return SessionError(f"{call} says {told}.", hint=hint)

"""Device memory, a stream and events, whichever package brings them."""

from __future__ import annotations

import contextlib
import importlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from toolkit.core.errors import SessionError, UnavailableError
from toolkit.core.registry import Entry, Registry


class CudaDevice(ABC):
    """The first GPU of this process, in its primary context, which other libraries use as well, and
    a stream of its own. May be used from any thread, one at a time.

    `package` names what it is made with. Making one raises UnavailableError where there is no GPU;
    every other call raises SessionError for what the driver refuses.
    """

    package: ClassVar[str]
    gpu: str
    capability: int
    """The compute capability: 89 is 8.9."""
    stream: int
    """The handle of the stream, for a library that enqueues on it."""

    @abstractmethod
    def allocate(self, size: int) -> int:
        """The address of so many bytes of device memory."""

    @abstractmethod
    def free(self, address: int) -> None:
        """Gives them back."""

    @abstractmethod
    def allocate_pinned(self, size: int) -> np.ndarray:
        """So many bytes of host memory that copies need no detour to, as uint8 [size]."""

    @abstractmethod
    def free_pinned(self, array: np.ndarray) -> None:
        """Gives back what `allocate_pinned` gave: no view of it may be read any more."""

    @abstractmethod
    def to_device(self, address: int, array: np.ndarray) -> None:
        """Enqueues a copy of a contiguous array, which must stay as it is until `synchronize`."""

    @abstractmethod
    def to_host(self, array: np.ndarray, address: int) -> None:
        """Enqueues a copy into a contiguous array, which is there after `synchronize`."""

    @abstractmethod
    def event(self) -> Any:
        """One that marks a place on the stream; freed with the device."""

    @abstractmethod
    def record(self, event: Any) -> None:
        """Enqueues the event."""

    @abstractmethod
    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Between two that were recorded, after `synchronize`."""

    @abstractmethod
    def synchronize(self) -> None:
        """Waits for all that was enqueued."""

    @abstractmethod
    def close(self) -> None:
        """Frees the stream and the events. May be called again."""


DEVICES: Registry[CudaDevice] = Registry(
    "package for device memory",
    {
        "cuda-bindings": Entry(
            "runtimes.cuda_by_bindings:CudaByBindings", command="pip install cuda-bindings"
        ),
        "pycuda": Entry("runtimes.cuda_by_pycuda:CudaByPycuda", command="pip install pycuda"),
    },
)
"""In the order in which they are taken."""


def missing_packages() -> list[str] | None:
    """Why none of them can be imported, a reason each; None where one can."""
    reasons = []
    for name in DEVICES.names():
        module = DEVICES.entry(name).target.partition(":")[0]
        try:
            importlib.import_module(module)
            return None
        except (ImportError, OSError, RuntimeError) as error:  # a package that is only half there
            reasons.append(f"{name} cannot be imported: {error}")
    return reasons


def open_device(package: str | None = None) -> CudaDevice:
    """A GPU by the package that is named, or by the first that can be imported.

    Raises UnknownNameError, and UnavailableError where there is none or no GPU.
    """
    names = DEVICES.names() if package is None else [package]
    for name in names[:-1]:
        with contextlib.suppress(UnavailableError):
            return DEVICES.create(name)
    return DEVICES.create(names[-1])


def refused(call: str, told: str) -> SessionError:
    """The error for what the driver refuses."""
    if "OUT_OF_MEMORY" in told or "out of memory" in told:
        hint = "Give a smaller batch, or end what else uses the GPU (`nvidia-smi` lists it)."
    else:
        hint = "`nvidia-smi` says whether the GPU is well; after a fault, start a new process."
    return SessionError(f"{call} says {told}.", hint=hint)

"""NVIDIA GPUs of this machine, as reported by the driver, and conflicts between GPU packages.

This module imports no GPU package, so that code can check for a GPU before it imports one.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.core.documents import Json
from toolkit.core.session import Availability

INDEX = "--extra-index-url https://pypi.nvidia.com"
TRIPY_INDEX = "--find-links https://nvidia.github.io/TensorRT-Incubator/packages.html"
"""Options of pip that name the index of packages for which PyPI only has placeholders."""

DRIVER = "libcuda.so.1"
NAME_BYTES = 256
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
NO_DRIVER = (
    "Run it on a machine with an NVIDIA GPU and its driver (`nvidia-smi` lists both); in a "
    "container, start that with --gpus all."
)


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """NVIDIA GPU. `capability` is its compute capability times ten: 89 for 8.9."""

    name: str
    capability: int
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Driver:
    """NVIDIA driver and its GPUs.

    `version` is the newest CUDA version that the driver supports, such as "13.0". `reason` says why
    there is no GPU, and is None if there is one.
    """

    version: str | None = None
    gpus: tuple[Gpu, ...] = ()
    reason: str | None = None


@functools.cache
def driver() -> Driver:
    """Query the driver and its GPUs via the CUDA driver API. Never raises."""
    try:
        cuda = ctypes.CDLL(DRIVER)
    except OSError:
        return Driver(reason=f"no NVIDIA driver: {DRIVER} cannot be loaded")
    try:
        return _asked(cuda)
    except (AttributeError, OSError, _CudaError) as error:
        return Driver(reason=f"the NVIDIA driver gives no GPU: {error}")


class _CudaError(Exception):
    """Error code returned by a call of the driver API."""


def _asked(cuda: ctypes.CDLL) -> Driver:
    def call(name: str, *arguments: object) -> None:
        if code := getattr(cuda, name)(*arguments):
            text = ctypes.c_char_p()
            cuda.cuGetErrorName(code, ctypes.byref(text))
            raise _CudaError(f"{name} says {(text.value or b'error').decode()} ({code})")

    call("cuInit", 0)
    count, version = ctypes.c_int(), ctypes.c_int()
    call("cuDriverGetVersion", ctypes.byref(version))
    call("cuDeviceGetCount", ctypes.byref(count))
    gpus = []
    for number in range(count.value):
        device, size = ctypes.c_int(), ctypes.c_size_t()
        major, minor = ctypes.c_int(), ctypes.c_int()
        name = ctypes.create_string_buffer(NAME_BYTES)
        call("cuDeviceGet", ctypes.byref(device), number)
        call("cuDeviceGetName", name, NAME_BYTES, device)
        call("cuDeviceTotalMem_v2", ctypes.byref(size), device)
        call("cuDeviceGetAttribute", ctypes.byref(major), MAJOR, device)
        call("cuDeviceGetAttribute", ctypes.byref(minor), MINOR, device)
        gpus.append(
            Gpu(
                name=name.value.decode(errors="replace"),
                capability=10 * major.value + minor.value,
                memory_bytes=size.value,
            )
        )
    found = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Driver(
        version=found, gpus=tuple(gpus), reason=None if gpus else "the NVIDIA driver lists no GPU"
    )


def available(version: str) -> Availability:
    """Return the availability of a runtime of that installed version: whether there is a GPU."""
    reason = driver().reason
    return Availability(
        ok=reason is None,
        version=version,
        reason=reason,
        hint=None if reason is None else NO_DRIVER,
    )


def hush_tf32_advice() -> None:
    """Suppress torch's warning that recommends TF32, which is off on purpose."""
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")


def installed(distribution: str) -> str | None:
    """Return the version of an installed distribution, None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Conflict between installed distributions: the affected runtimes, the reason and the fix."""

    runtimes: frozenset[str]
    reason: str
    hint: str

    def to_json(self) -> Json:
        return {"runtimes": sorted(self.runtimes), "reason": self.reason, "hint": self.hint}


def conflicts() -> Sequence[Conflict]:
    """Return the package conflicts in this environment."""
    found = []
    ours, theirs = installed("onnxruntime"), installed("onnxruntime-gpu")
    if ours and theirs:
        found.append(
            Conflict(
                runtimes=frozenset({"onnxruntime-cuda", "onnxruntime-tensorrt"}),
                reason=f"onnxruntime {ours} and onnxruntime-gpu {theirs} are both installed: they "
                "write the same module, so that files of both may be mixed",
                hint="pip uninstall --yes onnxruntime onnxruntime-gpu; "
                f"pip install onnxruntime-gpu=={theirs}",
            )
        )
    tripy = installed("nvtripy")
    names = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")
    newer = next((v for name in names if (v := installed(name)) and _major(v) > 10), None)
    if tripy and newer:
        found.append(
            Conflict(
                runtimes=frozenset({"tripy"}),
                reason=f"nvtripy {tripy} runs on TensorRT 10, and TensorRT {newer} is installed",
                hint="Install nvtripy in a separate environment (docs/gpu.md).",
            )
        )
    return found


def conflict_of(runtime: str, version: str | None) -> Availability | None:
    """Return `runtime` as unavailable if it is affected by a package conflict, else None."""
    for conflict in conflicts():
        if runtime in conflict.runtimes:
            return Availability(
                ok=False, version=version, reason=conflict.reason, hint=conflict.hint
            )
    return None


def _major(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0

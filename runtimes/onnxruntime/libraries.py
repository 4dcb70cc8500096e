"""Checks whether the libraries that ONNX Runtime's GPU providers need can be loaded.

A provider's own library is never loaded here before ONNX Runtime has tried to load it: the library
must find ONNX Runtime's host, and crashes the process later if it is loaded too early.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from toolkit.core.nvidia import installed

FOLDER = Path(ort.__file__).parent / "capi"
CUDA_PROVIDER = "libonnxruntime_providers_cuda.so"
TENSORRT_PROVIDER = "libonnxruntime_providers_tensorrt.so"
TENSORRT_LIBRARY = re.compile(rb"libnv(?:infer|infer_plugin|onnxparser)\.so\.\d+")
TENSORRT_WHEEL = "tensorrt_libs"  # package in which TensorRT's wheels install them
PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
PLUGIN_WHEELS = tuple(
    f"onnxruntime-ep-nv-tensorrt-rtx{suffix}" for suffix in ("-cu13", "-cu12", "")
)


@functools.cache
def cuda_fault() -> str | None:
    """Return why no tensor can be placed on the GPU; None if one can."""
    preload = getattr(ort, "preload_dlls", None)  # since 1.21
    if preload is not None:
        # The loader does not search the wheels of CUDA and cuDNN. This prints what it misses.
        with contextlib.redirect_stdout(sys.stderr):
            preload()
    try:
        ort.OrtValue.ortvalue_from_shape_and_type([1], np.float32, "cuda", 0)
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        return _said_by_the_loader(FOLDER / CUDA_PROVIDER) or _first_line(error)
    return None


@functools.cache
def tensorrt_fault() -> str | None:
    """Return why the TensorRT that the provider was built for cannot be loaded; None if it can."""
    if fault := cuda_fault():
        return fault
    try:
        wanted = sorted(set(TENSORRT_LIBRARY.findall((FOLDER / TENSORRT_PROVIDER).read_bytes())))
    except OSError as error:
        return str(error)
    faults = [fault for name in wanted if (fault := _load(name.decode()))]
    return faults[0] if faults else None


def tensorrt_version() -> str:
    """Return the version of the loaded TensorRT, such as 10.16.1; "unknown" if there is none."""
    try:
        name = next(iter(TENSORRT_LIBRARY.findall((FOLDER / TENSORRT_PROVIDER).read_bytes())))
        library = ctypes.CDLL(name.decode().replace("_plugin", ""))
        number = library.getInferLibVersion()
    except (AttributeError, OSError, StopIteration):
        return "unknown"
    return f"{number // 10000}.{number % 10000 // 100}.{number % 100}"


@functools.cache
def plugin_devices() -> list[Any]:
    """Register TensorRT-RTX's provider and return its devices.

    Raise whatever its import or ONNX Runtime raises.
    """
    package = importlib.import_module(PLUGIN)  # loads its libraries, creates links
    name = package.get_ep_name()
    ort.register_execution_provider_library(name, package.get_library_path())
    return [device for device in ort.get_ep_devices() if device.ep_name == name]


@functools.cache
def plugin_fault() -> str | None:
    """Return why the plugin's provider has no device; None if it has one."""
    try:
        devices = plugin_devices()
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        return _first_line(error)
    return None if devices else "TensorRT-RTX supports none of the GPUs here"


def plugin_version() -> str | None:
    """Return the version of the plugin's package; None if it is not installed."""
    if importlib.util.find_spec(PLUGIN) is None:
        return None
    return next((found for name in PLUGIN_WHEELS if (found := installed(name))), "unknown")


def _load(name: str) -> str | None:
    """Load a library from the loader's path or TensorRT's wheel; return why not, or None."""
    try:
        ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return None if _load_from_wheel(name) else str(error)
    return None


def _load_from_wheel(name: str) -> bool:
    wheel = importlib.util.find_spec(TENSORRT_WHEEL)
    for folder in wheel.submodule_search_locations or () if wheel else ():
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(Path(folder) / name), mode=ctypes.RTLD_GLOBAL)
            return True
    return False


def _said_by_the_loader(library: Path) -> str | None:
    """Return the loader's error for a library; None if it loads."""
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]

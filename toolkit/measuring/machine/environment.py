"""Description of the hardware and software that affect latency on this machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from toolkit.core.codec import encode
from toolkit.core.documents import Json
from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.session import SessionOptions
from toolkit.measuring.machine.gpus import describe_gpus
from toolkit.measuring.machine.roofline import stored

PACKAGES = (
    "cuda-bindings",
    "flax",
    "inference-toolkit",
    "jax",
    "jaxlib",
    "keras",
    "numpy",
    "nvtripy",
    "onnx",
    "onnxruntime",
    "onnxruntime-ep-nv-tensorrt-rtx",
    "onnxruntime-gpu",
    "onnxscript",
    "openvino",
    "optax",
    "pycuda",
    "safetensors",
    "tensorflow",
    "tensorflow-cpu",
    "tensorrt",
    "tensorrt-rtx",
    "torch",
)
# Variables that configure threads, kernels or memory, by full name or by a prefix that is used for
# nothing else: results are shared, and an environment may contain secrets.
STEERING = re.compile(
    r"(OMP|KMP|MKL|GOMP|OPENBLAS|MALLOC|TCMALLOC|TORCHINDUCTOR|TBB)_[A-Z0-9_]+"
    r"|LD_PRELOAD|MALLOC_CONF|ONEDNN_[A-Z_]+|DNNL_[A-Z_]+"
    r"|TF_(NUM_INTRAOP_THREADS|NUM_INTEROP_THREADS|ENABLE_ONEDNN_OPTS|XLA_FLAGS)|XLA_FLAGS"
    r"|CUDA_(VISIBLE_DEVICES|LAUNCH_BLOCKING|MODULE_LOADING|DEVICE_ORDER)"
    r"|NVIDIA_(TF32_OVERRIDE|VISIBLE_DEVICES)|TORCH_(ALLOW_TF32_CUBLAS_OVERRIDE|NUM_THREADS)"
)
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL")
VNNI = frozenset({"avx512_vnni", "avx_vnni", "asimddp", "i8mm"})


def describe_environment(threads: int | None = None) -> Json:
    """Return processor, GPUs, memory, load, stored peaks, versions, commit and variables.

    The variables are those of STEERING. `threads` is the number given to every worker, None if no
    worker is started. Unknown values are None.
    """
    cpu = _cpu()
    gpus, states = describe_gpus()
    return {
        "cpu": cpu,
        "gpus": gpus,
        "gpu_states": states,
        "memory_bytes": psutil.virtual_memory().total,
        "memory_available_bytes": psutil.virtual_memory().available,
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "threads": threads,
        "ceilings": None if threads is None else _ceilings(cpu, threads),
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "versions": _versions(),
        "commit": _commit(),
        "variables": _steering_variables(),
    }


def machine_of(environment: Mapping[str, Any]) -> str:
    """Return the processor, its cores and the GPUs of a described environment in one line."""
    cpu = environment["cpu"]
    cores = cpu["container_cores"] or cpu["available_cores"] or cpu["logical_cores"]
    gpus = [str(gpu["name"]) for gpu in environment.get("gpus") or []]
    return ", ".join([f"{cpu['model']}, {cores:g} cores", *gpus])


def _cpu() -> Json:
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    fields = _cpuinfo()
    return {
        "model": fields.get("model name") or platform.processor() or None,
        "flags": cpu_flags(),
        "logical_cores": psutil.cpu_count(logical=True),
        "physical_cores": psutil.cpu_count(logical=False),
        "available_cores": len(affinity) if affinity is not None else None,
        "container_cores": _cgroup_cores(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    }


def _ceilings(cpu: Json, threads: int) -> Any:
    """Return what `toolkit doctor --ceilings` stored, None if it is missing or unreadable."""
    try:
        found = stored(cpu, threads)
    except ToolkitError:
        return None
    return encode(found)


def _cpuinfo() -> dict[str, str]:
    """Return the fields of the first processor in /proc/cpuinfo, none if there is no such file."""
    first = (_read("/proc/cpuinfo") or "").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_flags() -> list[str]:
    """Return vector and matrix instruction sets, named as by the Linux kernel, else by NumPy."""
    fields = _cpuinfo()
    from_kernel = fields.get("flags") or fields.get("Features")
    if from_kernel is not None:
        vector = re.compile(r"^(sse|avx|fma|amx|f16c|asimd|sve|neon|bf16|i8mm|sme)")
        return sorted(flag for flag in from_kernel.split() if vector.match(flag))
    config: Any = np.show_config(mode="dicts")
    return sorted(config.get("SIMD Extensions", {}).get("found", []))


def has_vnni() -> bool:
    """Return whether INT8 products are summed in 32 bits; other processors saturate at 16 bits."""
    return not VNNI.isdisjoint(cpu_flags())


def _cgroup_cores() -> float | None:
    """Return the processor quota of this container in cores, None if there is none."""
    unified = _read("/sys/fs/cgroup/cpu.max")
    if unified:
        quota, _, period = unified.partition(" ")
        return None if quota == "max" else int(quota) / int(period)
    legacy = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
    period = _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us") or ""
    return int(legacy) / int(period) if legacy and int(legacy) > 0 else None


def _steering_variables() -> dict[str, str]:
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if STEERING.fullmatch(name) and not SECRET.search(name)
    }


def _versions() -> Json:
    return {package: version for package in PACKAGES if (version := _version(package))}


def _commit() -> str | None:
    """Return the commit of the working directory's repository, with "-dirty" if files differ."""
    command = [
        "git",
        "--no-optional-locks",
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def available_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def session_options(threads: int | None, cpus: frozenset[int] | None = None) -> SessionOptions:
    """Return options for `threads` threads, by default one per core of `cpus`.

    `cpus` None stands for all cores that this process may run on. Raises UsageError if `cpus` is
    empty or has a core that this process may not run on.
    """
    if cpus is None:
        return SessionOptions(threads=available_cores() if threads is None else threads)
    may = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if not cpus or not cpus <= may:
        raise UsageError(
            f"Got --cpus {','.join(map(str, sorted(cpus)))}, expected some of "
            f"{','.join(map(str, sorted(may))) or 'none: this system pins no process'}.",
            hint="Give cores from that list.",
        )
    return SessionOptions(threads=len(cpus) if threads is None else threads)

"""What runtimes for NVIDIA's GPUs ask before they import anything heavy: whether there is one, and
which packages exclude each other."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.core.nvidia import NO_DRIVER, Driver, Gpu, driver
from toolkit.core.session import Availability

__all__ = [
    "NO_DRIVER", "Conflict", "Driver", "Gpu", "available", "conflict_of", "conflicts", "driver",
    "installed",
]  # fmt: skip


def available(version: str) -> Availability:
    """That of a runtime whose packages are there: whether there is a GPU for it."""
    reason = driver().reason
    return Availability(
        ok=reason is None,
        version=version,
        reason=reason,
        hint=None if reason is None else NO_DRIVER,
    )


def installed(distribution: str) -> str | None:
    """Its version."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Distributions that must not lie in one environment, why, and what to do."""

    runtimes: frozenset[str]
    reason: str
    hint: str


def conflicts() -> Sequence[Conflict]:
    """Those of this environment."""
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
                hint="Give nvtripy an environment of its own (docs/gpu.md).",
            )
        )
    return found


def conflict_of(runtime: str, version: str | None) -> Availability | None:
    """Unavailable, with the reason, where packages that `runtime` needs exclude each other."""
    for conflict in conflicts():
        if runtime in conflict.runtimes:
            return Availability(
                ok=False, version=version, reason=conflict.reason, hint=conflict.hint
            )
    return None


def _major(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0

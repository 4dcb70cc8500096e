"""Cache of engines built from a model, so that the next process need not build them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import platformdirs

from toolkit.core.artifact import Artifact
from toolkit.core.documents import canonical
from toolkit.core.files import digest_bytes, wrapping_os_errors
from toolkit.core.nvidia import Driver

DIGITS = 32

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of inputs by name."""


def key(
    artifact: Artifact,
    *,
    runtime: str,
    shapes: Shapes,
    options: Mapping[str, str],
    versions: Mapping[str, str],
    driver: Driver,
) -> str:
    """Return a key that is the same only for the same engine.

    An engine contains the weights, is tuned to the shapes and the GPU, and can only be read by the
    version that wrote it. The model is identified by the digests of all its files, including
    external data.
    """
    gpu = driver.gpus[0] if driver.gpus else None
    parts = {
        "runtime": runtime,
        "entry": artifact.entry,
        "files": {name: record.digest for name, record in artifact.files.items()},
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "options": dict(options),
        "versions": dict(versions),
        "driver": driver.version,
        "gpu": gpu and gpu.name,
        "capability": gpu and gpu.capability,
    }
    return digest_bytes(canonical(parts)).removeprefix("sha256:")[:DIGITS]


def folder(key: str) -> Path:
    """Return the directory of an engine, created if missing. Raise ToolkitError if that fails."""
    place = platformdirs.user_cache_path("inference-toolkit") / "engines" / key
    with wrapping_os_errors(f"keep engines in {place}"):
        place.mkdir(parents=True, exist_ok=True)
    return place

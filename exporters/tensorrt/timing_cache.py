"""Cache of the kernel times that TensorRT measured on a GPU, for the next build there."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import platformdirs

from toolkit.core.files import write_atomically
from toolkit.core.nvidia import Gpu

DIGEST_BYTES = hashlib.sha256().digest_size


@final
@dataclass(frozen=True, kw_only=True)
class TimingCache:
    """Cache file of one GPU name, compute capability and version of TensorRT.

    The file holds a digest, followed by TensorRT's data. A file that is damaged, or that TensorRT
    does not accept, is ignored and replaced.
    """

    path: Path

    @classmethod
    def of(cls, gpu: Gpu, version: str) -> Self:
        name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{gpu.name} {gpu.capability} {version}").strip("-")
        place = platformdirs.user_cache_path("inference-toolkit") / "timing-caches"
        return cls(path=place / f"tensorrt-{name}.bin")

    def attach(self, config: Any) -> None:
        """Let a build read the cache and add to it."""
        cache = config.create_timing_cache(self._read())
        if cache is None or not config.set_timing_cache(cache, False):
            config.set_timing_cache(config.create_timing_cache(b""), False)

    def keep(self, config: Any) -> None:
        """Write the cache of a build to the file."""
        cache = config.get_timing_cache()
        if cache is not None:
            data = bytes(cache.serialize())
            write_atomically(self.path, hashlib.sha256(data).digest() + data)

    def _read(self) -> bytes:
        try:
            content = self.path.read_bytes()
        except OSError:
            return b""
        digest, data = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        return data if hashlib.sha256(data).digest() == digest else b""

"""Resource limits for processes that read untrusted files."""

from __future__ import annotations

import contextlib
import errno
import math
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from toolkit.core.documents import Json
from toolkit.core.memory import available_bytes

MEMORY_BYTES = 2 << 30  # enough for a framework and a small model
MEMORY_TIMES = 16  # copies of the tensors in a file, some in float64
MEMORY_SHARE = 0.8  # of the available memory
FILE_BYTES = 64 << 20  # logs and caches of a framework
FILE_TIMES = 4  # the uncompressed content of an archive
CAUSES = (
    "bad_alloc", "bad allocation", "can't allocate memory", "cannot allocate memory",
    "not enough memory", "oom when allocating", "out of memory", "unable to allocate",
)  # fmt: skip
"""Lower-case texts in the messages of libraries when an allocation fails."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on the resources that a process may use in addition to its current use.

    `memory_bytes` limits private memory (RLIMIT_DATA), which excludes address space that is only
    reserved. `cpu_s` limits the processor time of all threads together, and `file_bytes` the size
    of each file that is written. None means no limit.
    """

    memory_bytes: int
    cpu_s: float | None = None
    file_bytes: int | None = None

    @classmethod
    def for_reading(cls, size_bytes: int, seconds: float, threads: int) -> Limits:
        """Return the limits for reading files of `size_bytes` in total within `seconds`.

        The processor time is `seconds` for each of `threads`. The memory is at most that of
        `for_converting`.
        """
        memory = MEMORY_BYTES + MEMORY_TIMES * size_bytes
        return cls(
            memory_bytes=min(memory, cls.for_converting().memory_bytes),
            cpu_s=seconds * threads,
            file_bytes=FILE_BYTES + FILE_TIMES * size_bytes,
        )

    @classmethod
    def for_converting(cls) -> Limits:
        """Return the limits for converting a model: MEMORY_SHARE of the available memory."""
        return cls(memory_bytes=int(MEMORY_SHARE * available_bytes()))

    def to_json(self) -> Json:
        return asdict(self)

    @property
    def text(self) -> str:
        """Description of the limits for a message."""
        words = [f"{self.memory_bytes / 1e9:.1f} GB of memory"]
        if self.cpu_s is not None:
            words.append(f"{self.cpu_s:g} s of processor time")
        if self.file_bytes is not None:
            words.append(f"files of {self.file_bytes / 1e9:.1f} GB")
        return ", ".join(words)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Apply the limits to this process within the block.

        A failed allocation raises whatever error the library raises. A process that exceeds its
        processor time is ended by SIGXCPU.
        """
        asked: dict[int, int | None] = {
            resource.RLIMIT_DATA: _data_bytes() + self.memory_bytes,
            resource.RLIMIT_CPU: None
            if self.cpu_s is None
            else math.ceil(time.process_time() + self.cpu_s),
            resource.RLIMIT_FSIZE: self.file_bytes,
        }
        before = {name: resource.getrlimit(name) for name in asked}
        for name, limit in asked.items():
            soft, hard = before[name]
            if limit is not None:
                known = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
                resource.setrlimit(name, (min([limit, *known]), hard))
        try:
            yield
        finally:
            for name, limits in before.items():
                resource.setrlimit(name, limits)


def limit_reached(error: BaseException) -> str | None:
    """Return the limit that caused an error, "memory" or "file size"; None for other causes."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        said = str(cause).lower()
        if isinstance(cause, MemoryError) or any(words in said for words in CAUSES):
            return "memory"
        if isinstance(cause, OSError) and cause.errno == errno.EFBIG:
            return "file size"
        cause = cause.__cause__ or cause.__context__
    return None


def _data_bytes() -> int:
    """Return the current bytes that count against RLIMIT_DATA, 0 if they are unknown."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return 0

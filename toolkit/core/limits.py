"""Resource limits for code that reads files of unknown origin."""

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

MEMORY_BYTES = 2 << 30  # what a framework and a small model need
MEMORY_TIMES = 16  # copies of a file's tensors, some of them in float64
MEMORY_SHARE = 0.8  # of what the machine has left
FILE_BYTES = 64 << 20  # messages of a framework, and its caches
FILE_TIMES = 4  # an unpacked copy of an archive
CAUSES = (
    "bad_alloc", "bad allocation", "can't allocate memory", "cannot allocate memory",
    "not enough memory", "oom when allocating", "out of memory", "unable to allocate",
)  # fmt: skip
"""What libraries say when an allocation fails, in lower case."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Resources that a process may use on top of those that it uses already; None is no limit.

    `memory_bytes` counts private memory (RLIMIT_DATA): address space that a framework only reserves
    does not count. `cpu_s` is the processor time of all threads together, and `file_bytes` the
    largest file that may be written.
    """

    memory_bytes: int
    cpu_s: float | None = None
    file_bytes: int | None = None

    @classmethod
    def for_reading(cls, size_bytes: int, seconds: float, threads: int) -> Limits:
        """Return the limits for reading files of `size_bytes` in all, in `seconds`."""
        memory = MEMORY_BYTES + MEMORY_TIMES * size_bytes
        return cls(
            memory_bytes=min(memory, cls.for_converting().memory_bytes),
            cpu_s=seconds * threads,
            file_bytes=FILE_BYTES + FILE_TIMES * size_bytes,
        )

    @classmethod
    def for_converting(cls) -> Limits:
        """Return the limits for converting a model: most of the memory that is left."""
        return cls(memory_bytes=int(MEMORY_SHARE * available_bytes()))

    def to_json(self) -> Json:
        return asdict(self)

    @property
    def text(self) -> str:
        """The limits in words, for a message."""
        words = [f"{self.memory_bytes / 1e9:.1f} GB of memory"]
        if self.cpu_s is not None:
            words.append(f"{self.cpu_s:g} s of processor time")
        if self.file_bytes is not None:
            words.append(f"files of {self.file_bytes / 1e9:.1f} GB")
        return ", ".join(words)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Limit this process within the block.

        A failed allocation raises what the library makes of it; a process that used up its time is
        ended by SIGXCPU.
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
    """Return the limit, "memory" or "file size", that caused an error; None for another cause."""
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
    """Return what the system counts against RLIMIT_DATA now; 0 where it does not tell."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return 0

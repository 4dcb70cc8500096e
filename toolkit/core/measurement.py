"""Results of measurements: raw samples in nanoseconds, and all that is needed to assess them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NotRequired, TypedDict

import numpy as np

from toolkit.core.codec import Cores, Count, Int64, Name, Size, holding
from toolkit.core.learning import Learning
from toolkit.core.queries import Served
from toolkit.core.session import Provenance
from toolkit.core.work import Work


class Scope(StrEnum):
    """Timed part of a run: see docs/measuring.md, and docs/bench-training.md for EPOCH."""

    FORWARD = "forward"
    END_TO_END = "end_to_end"
    OPEN = "open"
    EPOCH = "epoch"


@dataclass(frozen=True, kw_only=True)
class Block:
    """Consecutive runs of one row, in int64 nanoseconds; blocks of different rows are interleaved.

    `round` is the number of the round, and `process` that of the row's process that ran the block;
    both count from 0. `lead` has the first runs after the switch from another row, which meet cold
    caches and sleeping threads: they are stored but not part of any statistic. `rss_bytes` is the
    resident size of the process after the block.
    """

    round: Size
    lead: np.ndarray
    samples: np.ndarray
    process: Size = 0
    rss_bytes: Size | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """All runs of one row in one scope.

    `warmup` has the warm-up runs of all its processes, in order; `settled` is whether every warm-up
    reached a steady state. `disturbance` is the fraction of the processor, 0 to 1, that other load
    took during the measurement.
    """

    scope: Scope
    warmup: np.ndarray
    settled: bool
    blocks: tuple[Block, ...]
    disturbance: float = 0.0

    @property
    def samples(self) -> np.ndarray:
        """All measured runs in order, in nanoseconds."""
        parts = [block.samples for block in self.blocks]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    @property
    def blocks_of_processes(self) -> list[list[Block]]:
        """The blocks of each process, without blocks that have no samples."""
        found: dict[int, list[Block]] = {}
        for block in self.blocks:
            if len(block.samples):
                found.setdefault(block.process, []).append(block)
        return list(found.values())

    @property
    def samples_of_processes(self) -> list[np.ndarray]:
        """The samples of each process, in nanoseconds."""
        return [
            np.concatenate([block.samples for block in blocks])
            for blocks in self.blocks_of_processes
        ]


@dataclass(frozen=True, kw_only=True)
class Opening:
    """Time and memory growth of a new process until its first output: import, open and first run.

    Times are in nanoseconds. Growth is in bytes of resident size: negative if memory was returned
    to the system, None if the system does not report it.
    """

    import_ns: Size
    open_ns: Size
    first_run_ns: Size
    import_bytes: Int64 | None = None
    open_bytes: Int64 | None = None
    first_run_bytes: Int64 | None = None

    @property
    def total_ns(self) -> int:
        return self.import_ns + self.open_ns + self.first_run_ns


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Comparison of outputs with the reference outputs.

    `max_abs` is the largest absolute difference. `max_rel` is that difference divided by the
    largest magnitude of the same reference output. Both are maxima over all outputs, and None if
    nothing could be compared; `max_rel` is also None if the reference outputs are all zero.
    `remark` explains why outputs beyond the table of tolerances passed.
    """

    passed: bool
    max_abs: float | None
    max_rel: float | None
    reason: str | None = None
    remark: str | None = None


class Status(StrEnum):
    OK = "ok"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, kw_only=True)
class Row:
    """Settings and measurements of one runtime on one artifact at one batch size.

    The measurements of rows in the same group were interleaved, and are compared with the first row
    of the group. `device` is the requested one: that of the runtime. `artifact_bytes` is the total
    size of the files of the artifact. A row that trains has its trainer as `runtime`, and
    `learning`.
    """

    group: Size = 0
    runtime: str
    artifact: str
    artifact_digest: str
    artifact_bytes: Size | None = None
    batch: Count
    status: Status
    reason: str | None = None
    precision_requested: str
    device: str = "cpu"
    computes: bool = True
    tuning: Mapping[str, str] = field(default_factory=dict)
    openings: tuple[Opening, ...] = ()
    parity: Agreement | None = None
    provenance: Provenance | None = None
    measurements: tuple[Measurement, ...] = ()
    served: Served | None = None
    peak_rss_bytes: Size | None = None
    work: Work | None = None
    learning: Learning | None = None

    def samples_a_run(self, scope: Scope) -> int:
        """Return the number of samples that one run processes."""
        return self.learning.rows if scope is Scope.EPOCH and self.learning else self.batch

    def measurement(self, scope: Scope) -> Measurement | None:
        return next((m for m in self.measurements if m.scope == scope and m.blocks), None)


class _Options(TypedDict):
    threads: Count


class _Plan(TypedDict):
    artifact: NotRequired[str]  # a search round lists its candidates instead
    runtimes: NotRequired[list[str]]
    batches: NotRequired[list[Count]]
    inputs: NotRequired[str]
    options: _Options
    cpus: list[Size] | None


class _Processor(TypedDict):
    model: str | None
    flags: list[str]
    logical_cores: Count | None
    available_cores: Count | None
    container_cores: Cores | None


class _Environment(TypedDict):
    cpu: _Processor
    memory_bytes: Size
    platform: str
    python: str
    commit: str | None
    versions: dict[str, str | None]
    variables: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Result:
    """Immutable result of one measurement, such as `toolkit bench`, with all raw samples."""

    id: Name
    created: str
    plan: Mapping[str, Any] = holding(_Plan)
    rows: tuple[Row, ...]
    environment: Mapping[str, Any] = holding(_Environment)
    warnings: tuple[str, ...] = field(default=())

"""What a measurement leaves behind: raw nanoseconds, and everything needed to judge them."""

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
    """What is timed: see docs/measuring.md, and docs/bench-training.md for EPOCH."""

    FORWARD = "forward"
    END_TO_END = "end_to_end"
    OPEN = "open"
    EPOCH = "epoch"


@dataclass(frozen=True, kw_only=True)
class Block:
    """Consecutive runs of one row, between runs of other rows; int64 nanoseconds each.

    `round` and `process` count from 0 over all of a row's blocks: how many turns went before, and
    which of the row's processes ran it.
    `lead` holds the first runs after the switch, which meet cold caches and sleeping threads:
    kept, and not part of any statistic. `rss_bytes` is the resident size of the row's process
    after it.
    """

    round: Size
    lead: np.ndarray
    samples: np.ndarray
    process: Size = 0
    rss_bytes: Size | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """All runs of one row in one scope.

    `warmup` are those of each of its processes, one after the other; `settled` is whether all came
    to rest.
    `disturbance` is the share of the processor, 0 to 1, that others took meanwhile.
    """

    scope: Scope
    warmup: np.ndarray
    settled: bool
    blocks: tuple[Block, ...]
    disturbance: float = 0.0

    @property
    def samples(self) -> np.ndarray:
        """Every measured run in order, nanoseconds."""
        parts = [block.samples for block in self.blocks]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How long a new process took to its first output, and by how much it grew.

    Nanoseconds, and bytes of resident size: negative where memory was given back, None where the
    system does not tell it.
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
    """How close outputs came to the reference; None where nothing was compared.

    `max_abs` is the largest absolute difference, `max_rel` the same over the largest magnitude
    of the reference; both over all outputs. `remark` says how outputs were judged that the table
    of tolerances alone would refuse.
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
    """One runtime on one artifact at one batch: what it was asked, did and took.

    Rows of one group were measured in turn, and are compared with the first of them. `device` is
    the one that was asked for: the runtime's.
    `artifact_bytes` are those of all files of the artifact that was opened. A row that trains has
    its trainer as `runtime`, and `learning`.
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
        """How many samples go through the model in one run."""
        return self.learning.rows if scope is Scope.EPOCH and self.learning else self.batch

    def measurement(self, scope: Scope) -> Measurement | None:
        return next((m for m in self.measurements if m.scope == scope and m.blocks), None)


class _Options(TypedDict):
    threads: Count


class _Plan(TypedDict):
    artifact: NotRequired[str]  # a round of a search names its candidates instead
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
    """One run of `toolkit bench`: immutable, with every raw sample."""

    id: Name
    created: str
    plan: Mapping[str, Any] = holding(_Plan)
    rows: tuple[Row, ...]
    environment: Mapping[str, Any] = holding(_Environment)
    warnings: tuple[str, ...] = field(default=())

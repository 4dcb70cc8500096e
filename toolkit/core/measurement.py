"""What a measurement leaves behind: raw nanoseconds, and everything needed to judge them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

import numpy as np

from toolkit.core.documents import Json
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

    round: int
    lead: np.ndarray
    samples: np.ndarray
    process: int = 0
    rss_bytes: int | None = None

    def to_json(self) -> Json:
        return {
            "round": self.round,
            "process": self.process,
            "lead": self.lead.tolist(),
            "samples": self.samples.tolist(),
            "rss_bytes": self.rss_bytes,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            round=data["round"],
            process=data["process"],
            lead=np.array(data["lead"], np.int64),
            samples=np.array(data["samples"], np.int64),
            rss_bytes=data["rss_bytes"],
        )


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

    def to_json(self) -> Json:
        return {
            "scope": self.scope,
            "warmup": self.warmup.tolist(),
            "settled": self.settled,
            "disturbance": self.disturbance,
            "blocks": [block.to_json() for block in self.blocks],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            scope=Scope(data["scope"]),
            warmup=np.array(data["warmup"], np.int64),
            settled=data["settled"],
            disturbance=data["disturbance"],
            blocks=tuple(Block.from_json(block) for block in data["blocks"]),
        )


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How long a new process took to its first output, and by how much it grew.

    Nanoseconds, and bytes of resident size: negative where memory was given back, None where the
    system does not tell it.
    """

    import_ns: int
    open_ns: int
    first_run_ns: int
    import_bytes: int | None = None
    open_bytes: int | None = None
    first_run_bytes: int | None = None

    @property
    def total_ns(self) -> int:
        return self.import_ns + self.open_ns + self.first_run_ns

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{one.name: data[one.name] for one in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How close outputs came to the reference; None where nothing was compared.

    `max_abs` is the largest absolute difference, `max_rel` the same over the largest magnitude
    of the reference; both over all outputs.
    """

    passed: bool
    max_abs: float | None
    max_rel: float | None
    reason: str | None = None

    def to_json(self) -> Json:
        return {
            "passed": self.passed,
            "max_abs": self.max_abs,
            "max_rel": self.max_rel,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{key: data[key] for key in ("passed", "max_abs", "max_rel", "reason")})


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

    group: int = 0
    runtime: str
    artifact: str
    artifact_digest: str
    artifact_bytes: int | None = None
    batch: int
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
    peak_rss_bytes: int | None = None
    work: Work | None = None
    learning: Learning | None = None

    def samples_a_run(self, scope: Scope) -> int:
        """How many samples go through the model in one run."""
        return self.learning.rows if scope is Scope.EPOCH and self.learning else self.batch

    def measurement(self, scope: Scope) -> Measurement | None:
        return next((m for m in self.measurements if m.scope == scope and m.blocks), None)

    def to_json(self) -> Json:
        return {
            "group": self.group,
            "runtime": self.runtime,
            "artifact": self.artifact,
            "artifact_digest": self.artifact_digest,
            "artifact_bytes": self.artifact_bytes,
            "batch": self.batch,
            "status": self.status,
            "reason": self.reason,
            "precision_requested": self.precision_requested,
            "device": self.device,
            "computes": self.computes,
            "tuning": dict(self.tuning),
            "openings": [opening.to_json() for opening in self.openings],
            "parity": self.parity and self.parity.to_json(),
            "provenance": self.provenance and self.provenance.to_json(),
            "measurements": [m.to_json() for m in self.measurements],
            "served": self.served and self.served.to_json(),
            "peak_rss_bytes": self.peak_rss_bytes,
            "work": self.work and self.work.to_json(),
            "learning": self.learning and self.learning.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            group=data["group"],
            runtime=data["runtime"],
            artifact=data["artifact"],
            artifact_digest=data["artifact_digest"],
            artifact_bytes=data["artifact_bytes"],
            batch=data["batch"],
            status=Status(data["status"]),
            reason=data["reason"],
            precision_requested=data["precision_requested"],
            device=data.get("device", "cpu"),
            computes=data["computes"],
            tuning=data["tuning"],
            openings=tuple(Opening.from_json(opening) for opening in data["openings"]),
            parity=data["parity"] and Agreement.from_json(data["parity"]),
            provenance=data["provenance"] and Provenance(**data["provenance"]),
            measurements=tuple(Measurement.from_json(m) for m in data["measurements"]),
            served=data["served"] and Served.from_json(data["served"]),
            peak_rss_bytes=data["peak_rss_bytes"],
            work=data["work"] and Work.from_json(data["work"]),
            learning=Learning.from_json(data["learning"]) if data.get("learning") else None,
        )


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run of `toolkit bench`: immutable, with every raw sample."""

    id: str
    created: str
    plan: Mapping[str, Any]
    rows: tuple[Row, ...]
    environment: Mapping[str, Any]
    warnings: tuple[str, ...] = field(default=())

    def to_json(self) -> Json:
        return {
            "id": self.id,
            "created": self.created,
            "plan": dict(self.plan),
            "rows": [row.to_json() for row in self.rows],
            "environment": dict(self.environment),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            id=data["id"],
            created=data["created"],
            plan=data["plan"],
            rows=tuple(Row.from_json(row) for row in data["rows"]),
            environment=data["environment"],
            warnings=tuple(data["warnings"]),
        )

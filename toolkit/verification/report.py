"""Result of an accuracy comparison: its variants, rows and verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from toolkit.core.artifact import Artifact
from toolkit.core.codec import encode
from toolkit.core.documents import Json
from toolkit.core.gates import CheckOutcome, overall
from toolkit.core.measurement import Agreement, Status
from toolkit.core.session import Provenance
from toolkit.exporting.check_layers import Layers
from toolkit.parity.paired import CONFIDENCE, Drop
from toolkit.parity.similarity import Similarity
from toolkit.parity.tolerances import Tolerance

SCHEMA = "toolkit.accuracy/1"


@dataclass(frozen=True, kw_only=True)
class Form:
    """A compared variant: its letter, and a description of its artifact."""

    letter: str
    path: str
    format: str
    precision: str
    digest: str

    @classmethod
    def of(cls, letter: str, artifact: Artifact) -> Self:
        return cls(
            letter=letter,
            path=str(artifact.path),
            format=artifact.format,
            precision=artifact.precision,
            digest=artifact.digest,
        )

    def to_json(self) -> Json:
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """Accuracy of A and of another variant, B, on the samples of one class."""

    label: int
    rows: int
    a: float
    b: float
    drop: Drop

    def to_json(self) -> Json:
        return {**vars(self), "drop": self.drop.to_json()}


@dataclass(frozen=True, kw_only=True)
class AccuracyRow:
    """Comparison of one variant on one runtime with A, on all samples.

    `status` says whether it ran, `reason` why not. `comparable` is whether the scored output has
    A's shape and is finite. `departs` is the reason why outputs exceed the tolerance, None if they
    do not. `same` is whether they are within the tolerance of float32. `gate` is the verdict, `why`
    the reason for it. `rows_needed` is about how many samples would decide an inconclusive one.
    """

    form: str
    runtime: str
    status: Status
    reason: str | None = None
    comparable: bool = False
    departs: str | None = None
    same: bool = False
    scores: Mapping[str, float] | None = None
    agreement: float | None = None
    drop: Drop | None = None
    classes: tuple[ClassRow, ...] = ()
    parity: Agreement | None = None
    tolerance: Tolerance | None = None
    outputs: Mapping[str, Similarity] = field(default_factory=dict)
    provenance: Provenance | None = None
    gate: CheckOutcome = CheckOutcome.UNKNOWN
    why: str = ""
    rows_needed: int | None = None

    @property
    def passed(self) -> bool:
        return self.gate is CheckOutcome.PASSED

    def to_json(self) -> Json:
        return {
            "form": self.form,
            "runtime": self.runtime,
            "status": self.status,
            "reason": self.reason,
            "gate": self.gate,
            "why": self.why,
            "rows_needed": self.rows_needed,
            "scores": self.scores and dict(self.scores),
            "agreement": self.agreement,
            "drop": self.drop and self.drop.to_json(),
            "classes": [row.to_json() for row in self.classes],
            "departs": self.departs,
            "same_to_rounding": self.same,
            "max_abs": self.parity and self.parity.max_abs,
            "max_rel": self.parity and self.parity.max_rel,
            "tolerance": self.tolerance and dict(vars(self.tolerance)),
            "outputs": {name: near.to_json() for name, near in self.outputs.items()},
            "provenance": encode(self.provenance),
        }


@dataclass(frozen=True, kw_only=True)
class InnerTensors:
    """Comparison of the inner tensors of one variant with A's, or the reason why there is none."""

    form: str
    layers: Layers | None = None
    reason: str | None = None

    def to_json(self) -> Json:
        return {
            "form": self.form,
            "reason": self.reason,
            **(self.layers.to_json() if self.layers else {}),
        }


@dataclass(frozen=True, kw_only=True)
class AccuracyComparison:
    """Comparison of variants with the first of `forms`, A, on the same samples.

    `scores` are those of A's output `output`; empty without labels.
    """

    forms: tuple[Form, ...]
    data: str
    description: str
    samples: int
    labelled: bool
    reference: str
    output: str
    probabilities: bool
    scores: Mapping[str, float]
    max_drop: float | None
    rows: tuple[AccuracyRow, ...]
    layers: tuple[InnerTensors, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def gate(self) -> CheckOutcome:
        return overall(row.gate for row in self.rows)

    @property
    def passed(self) -> bool:
        return self.gate is CheckOutcome.PASSED

    def to_json(self) -> Json:
        return {
            "schema": SCHEMA,
            "gate": self.gate,
            "max_drop": self.max_drop,
            "confidence": CONFIDENCE,
            "data": self.data,
            "samples": self.samples,
            "labelled": self.labelled,
            "forms": [form.to_json() for form in self.forms],
            "a": {
                "runtime": self.reference,
                "output": self.output,
                "probabilities": self.probabilities,
                "scores": dict(self.scores),
            },
            "rows": [row.to_json() for row in self.rows],
            "layers": [one.to_json() for one in self.layers],
            "warnings": list(self.warnings),
        }


def judged(row: AccuracyRow, max_drop: float | None) -> AccuracyRow:
    """Return the row with its verdict: by the allowed drop if one is given, else by the tolerance.

    Outputs that equal A's up to float32 rounding pass with any number of samples, since more
    samples could not show a drop. A row that did not run is inconclusive. Outputs that are not
    comparable are judged by the tolerance.
    """
    if row.status is not Status.OK:
        return replace(row, gate=CheckOutcome.UNKNOWN, why=row.reason or "")
    if max_drop is None or not row.comparable:
        gate = CheckOutcome.FAILED if row.departs else CheckOutcome.PASSED
        return replace(row, gate=gate, why=row.departs or "outputs are within the tolerance")
    if row.same:
        return replace(
            row, gate=CheckOutcome.PASSED, why="outputs are A's to the rounding of float32"
        )
    if row.drop is None:
        why = "A's mean squared error is 0, of which no drop is a part"
        return replace(row, gate=CheckOutcome.UNKNOWN, why=why)
    gate = row.drop.gate(max_drop)
    allowed = f"{max_drop:g} {row.drop.unit}"
    needed = row.drop.rows_needed(max_drop) if gate is CheckOutcome.UNKNOWN else None
    rows = f"about {needed:,} rows would tell" if needed else "no number of rows would tell"
    why = {
        CheckOutcome.PASSED: f"the drop is within {allowed}",
        CheckOutcome.FAILED: f"the drop is more than {allowed}",
        CheckOutcome.UNKNOWN: f"whether the drop is within {allowed} cannot be decided from "
        f"{row.drop.rows:,} rows: {rows}, if they came out as these",
    }[gate]
    return replace(row, gate=gate, why=why, rows_needed=needed)

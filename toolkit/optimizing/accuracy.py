"""Accuracy checks of candidates against the model, with an allowed drop."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from toolkit.core.artifact import Artifact
from toolkit.core.documents import Json, plain, read_as, seal, write_document
from toolkit.core.errors import ToolkitError
from toolkit.core.gates import CheckOutcome
from toolkit.core.progress import Progress
from toolkit.core.specs import Feeds
from toolkit.optimizing.candidates import Candidate
from toolkit.optimizing.forms import Forms
from toolkit.parity.paired import accuracy_drop
from toolkit.sources.labelled_data import LabelledRows
from toolkit.sources.reference_runtime import reference_of
from toolkit.verification.reference_run import ReferenceRun
from toolkit.verification.report import judged

SCHEMA = "toolkit.verdict/1"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Outcome of a candidate's accuracy check, the reason for it, and all figures behind it."""

    gate: CheckOutcome
    why: str
    figures: Json

    @property
    def drop(self) -> float | None:
        """Drop in percentage points of accuracy or per cent of the MSE; None if unknown."""
        found = self.figures.get("drop")
        return found and found["value"]


@final
@dataclass(kw_only=True)
class Judge:
    """Accuracy checks of candidates against the model on all test samples.

    Each check runs once, and its verdict is stored in `directory`. The model itself runs before the
    first check that is not stored.
    """

    given: Artifact
    forms: Forms
    rows: LabelledRows
    max_drop: float
    threads: int
    timeout_s: float
    directory: Path
    progress: Progress
    _reference_run: ReferenceRun | None = None

    @property
    def arrays(self) -> tuple[Feeds, ...]:
        """Arrays of the test samples and of their targets."""
        targets = self.rows.targets
        return (self.rows.feeds, {} if targets is None else {"targets": targets})

    def of(self, candidate: Candidate, forms: Forms, name: str | None = None) -> Verdict:
        """Return the verdict on a candidate, stored or from a new check.

        Verdicts are stored by `name`, by default `candidate.arithmetic`. Raises ToolkitError if the
        model itself cannot be run, or its outputs contain NaN or infinity.
        """
        name = name or candidate.arithmetic
        path = self.directory / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}.json"
        if path.exists():
            try:
                return read_as(path, SCHEMA, Verdict)
            except ToolkitError as error:
                self.progress.note(f"warning: {error.problem} The accuracy is measured again.")
        self.progress.note(f"accuracy of {name}")
        row = self._model().hold(
            "B", forms, candidate.runtime, candidate.options, timeout_s=self.timeout_s
        )
        row = judged(row, self.max_drop)
        figures: dict[str, Any] = plain(row.to_json())
        figures["model"] = dict(self._model().scores())
        figures["rows"] = self.rows.count
        verdict = Verdict(gate=row.gate, why=row.why, figures=figures)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_document(path, seal(SCHEMA, {"candidate": name, **vars(verdict)}))
        return verdict

    def _model(self) -> ReferenceRun:
        if self._reference_run is None:
            reference = reference_of(self.forms, self.threads)
            self.progress.note(f"the model on {reference.name}, over {self.rows.count} rows")
            self._reference_run = ReferenceRun.of(
                self.given, reference, self.rows, timeout_s=self.timeout_s
            )
        return self._reference_run


def too_few(rows: LabelledRows, max_drop: float) -> str | None:
    """Return why there are too few samples to confirm a drop of at most `max_drop`, or None.

    They are too few if even a variant with the same answers as the model would not pass. Return
    None for a regression model.
    """
    if not rows.classes:
        return None
    right = np.ones(rows.count, bool)
    equal = accuracy_drop(right, right)
    if equal.gate(max_drop) is CheckOutcome.PASSED:
        return None
    least, needed = equal.interval[1], equal.rows_needed(max_drop)
    return (
        f"lower precision is left out: by {rows.count} rows, even equal answers leave a drop of "
        f"{least:.2f} points possible, and {max_drop:g} are allowed. Give {needed or 'more'} rows, "
        f"or --max-drop {least + 0.005:.2f}."
    )

"""Reference run of a model on all samples, with which other variants are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from toolkit.core.artifact import Artifact
from toolkit.core.errors import ToolkitError, UnavailableError, UsageError
from toolkit.core.measurement import Status
from toolkit.core.session import SessionOptions
from toolkit.core.specs import Outputs, paired
from toolkit.measuring.workers.client import WorkerProcess
from toolkit.parity.outputs import as_dtype_of, compare_outputs
from toolkit.parity.similarity import similarity
from toolkit.parity.tolerances import Tolerance, tolerance_for
from toolkit.sources.labelled_data import LabelledRows, first_rows, run_rows
from toolkit.sources.reference_runtime import Opening
from toolkit.verification.metrics import Scoring
from toolkit.verification.report import AccuracyRow, Form

SAME = "float32"  # precision whose tolerance decides whether outputs are the same


@dataclass(frozen=True, kw_only=True)
class ReferenceRun:
    """Reference run of a model on `rows`.

    `form` is the variant that ran, `expected` its outputs under the names of the outputs of
    `source`, and `scoring` the choice of the output to score.
    """

    source: Artifact
    form: Form
    rows: LabelledRows
    expected: Outputs
    scoring: Scoring

    @classmethod
    def of(
        cls, source: Artifact, reference: Opening, rows: LabelledRows, *, timeout_s: float
    ) -> Self:
        """Run the reference on all samples. Raises ToolkitError if outputs have NaN or infinity."""
        threads = reference.options.threads
        with WorkerProcess(threads=threads, timeout_s=timeout_s) as worker:
            opened = worker.open(reference.runtime, reference.forms, reference.options)
            form = next((f for f in reference.forms if f.digest == opened.artifact_digest), source)
            few = first_rows(rows, 1, source.signature)
            scoring = Scoring.of(source, rows, run_rows(worker, form, few, source.signature))
            outputs = _named(run_rows(worker, form, rows, source.signature), form, source)
        for name, array in outputs.items():
            if (broken := _not_finite(array)) is not None:
                raise ToolkitError(
                    f"A, {form.path} on {reference.runtime}, gives NaN or infinity in {name}, row "
                    f"{broken}: there is nothing to hold others against.",
                    hint="Fix the model, or leave out the rows that it fails on.",
                )
        return cls(
            source=source,
            form=Form.of("A", form),
            rows=rows,
            expected=outputs,
            scoring=scoring.settled(outputs),
        )

    def scores(self) -> dict[str, float]:
        """Return the scores of the reference run itself."""
        return self.scoring.scores(self.expected[self.scoring.output])

    def hold(
        self,
        letter: str,
        forms: Sequence[Artifact],
        runtime: str,
        options: SessionOptions,
        *,
        timeout_s: float,
        per_class: bool = False,
    ) -> AccuracyRow:
        """Compare a variant on one runtime; if it cannot run, the row has the reason."""
        first, expected, scoring = self.source, self.expected, self.scoring
        try:
            with WorkerProcess(threads=options.threads, timeout_s=timeout_s) as worker:
                opened = worker.open(runtime, forms, options)
                if not opened.computes:
                    raise UsageError(
                        f"{runtime} computes nothing, so there is nothing to verify.",
                        hint="Name a runtime that computes.",
                    )
                form = next((f for f in forms if f.digest == opened.artifact_digest), forms[0])
                outputs = _named(run_rows(worker, form, self.rows, first.signature), form, first)
                provenance = worker.provenance()
        except ToolkitError as error:
            missing = isinstance(error, UnavailableError)
            return AccuracyRow(
                form=letter,
                runtime=runtime,
                status=Status.UNAVAILABLE if missing else Status.FAILED,
                reason=f"{error.problem} {error.hint}",
            )
        outputs = {n: as_dtype_of(expected[n], array) for n, array in outputs.items()}
        tolerance = _coarser(first.precision, form.precision)
        parity = compare_outputs(outputs, expected, tolerance)
        got, wanted = outputs[scoring.output], expected[scoring.output]
        broken = _not_finite(got)
        fits = got.shape == wanted.shape and broken is None
        agreement = scoring.agreement(got, wanted) if fits else None
        reason = parity.reason
        if broken is not None:
            reason = f"{scoring.output} has NaN or infinity, first in row {broken}"
        elif reason is None and agreement is not None and agreement < tolerance.agreement:
            reason = f"top-1 agrees on {agreement:.2%} of rows, expected {tolerance.agreement:.2%}"
        return AccuracyRow(
            form=letter,
            runtime=runtime,
            status=Status.OK,
            comparable=fits,
            departs=reason,
            same=compare_outputs(outputs, expected, tolerance_for(SAME)).passed,
            scores=scoring.scores(got) if fits else None,
            agreement=agreement,
            drop=scoring.drop(got, wanted) if fits else None,
            classes=scoring.by_class(got, wanted) if fits and per_class else (),
            parity=parity,
            tolerance=tolerance,
            outputs={
                name: near
                for name, array in outputs.items()
                if (near := similarity(array, expected[name])) is not None
            },
            provenance=provenance,
        )


def _coarser(*precisions: str) -> Tolerance:
    return max((tolerance_for(one) for one in precisions), key=lambda one: one.relative)


def _named(outputs: Outputs, form: Artifact, first: Artifact) -> Outputs:
    """Return the outputs under the names of A's outputs."""
    names = paired(form.signature.outputs, first.signature.outputs)
    return {names[name]: array for name, array in outputs.items()}


def _not_finite(array: np.ndarray) -> int | None:
    """Return the index of the first sample with NaN or infinity, else None."""
    if not np.issubdtype(array.dtype, np.floating):
        return None
    rows = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    return int(rows.argmax()) if rows.any() else None

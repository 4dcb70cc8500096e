"""Hold forms of a model against the first of them, on the same rows: is one worse, by how much."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtimes import ACCEPTS
from toolkit.core.artifact import Artifact
from toolkit.core.errors import ToolkitError, UnavailableError, UsageError
from toolkit.core.measurement import Status
from toolkit.core.progress import Progress, Silent
from toolkit.core.session import SessionOptions
from toolkit.core.specs import Outputs, paired
from toolkit.measuring.client import WorkerProcess, check_timeout
from toolkit.measuring.environment import session_options
from toolkit.parity.outputs import compare_outputs
from toolkit.parity.paired import check_max_drop
from toolkit.parity.similarity import similarity
from toolkit.parity.tolerances import Tolerance, tolerance_for
from toolkit.steps.accuracy_report import (
    AccuracyComparison,
    AccuracyRow,
    Form,
    InnerTensors,
    judged,
)
from toolkit.steps.choices import known_runtimes, remarks_on
from toolkit.steps.labelled import (
    LabelledRows,
    check_rows,
    feeds_of,
    first_rows,
    load_rows,
    run_rows,
)
from toolkit.steps.parity_layers import compare_layers
from toolkit.steps.reference import REFERENCES, Opening, reference_of
from toolkit.steps.scoring import Scoring
from toolkit.steps.sources import candidates, open_artifact

Named = str | os.PathLike[str]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SAME = "float32"  # the precision within whose tolerance outputs are those of the same model


def compare_accuracy(
    artifacts: Sequence[Named],
    *,
    data: str | None = None,
    inputs: Named | None = None,
    data_settings: Mapping[str, Any] | None = None,
    data_dir: Named | None = None,
    runtimes: Sequence[str] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    timeout_s: float = 300.0,
    max_drop: float | None = None,
    per_class: bool = False,
    layers: bool = False,
    progress: Progress | None = None,
) -> AccuracyComparison:
    """Runs the first artifact once, as the reference is run, and the others on each runtime that
    was asked for and opens them, in a process each; of one artifact alone, its reference is first.

    `max_drop` is what is allowed of accuracy, in percentage points, or of the mean squared error,
    in per cent. Without it the tolerance of the coarser precision decides. Raises UsageError for
    rows that do not fit, labels that cannot be right, an artifact given twice; what the first
    raises, since without it there is nothing to hold the others against.
    """
    options = session_options(threads)
    check_timeout(timeout_s)
    if max_drop is not None:
        check_max_drop(max_drop)
    listener = progress or Silent()
    sources = [open_artifact(one) for one in artifacts]
    _check_given(sources)
    entrants = {
        letter: _runtimes(source, runtimes, device, alone=len(sources) == 1)
        for letter, source in zip(LETTERS[1:], sources[1:] or sources, strict=False)
    }
    reference = _reference(sources, options.threads)
    rows = load_rows(
        sources[0],
        data=data,
        inputs=None if inputs is None else Path(inputs),
        settings=data_settings,
        directory=None if data_dir is None else Path(data_dir),
        progress=listener,
    )
    _check_labels(rows, max_drop, per_class)
    for source in sources[1:]:
        check_rows(source, rows, sources[0].signature)
        paired(source.signature.outputs, sources[0].signature.outputs)
    listener.note(f"A on {reference.name}, over {rows.count} {rows.description}")
    first, expected, scoring = _run_first(reference, sources[0], rows, options, timeout_s)
    found, forms, total = [], [first], sum(len(names) for names in entrants.values())
    for letter, source in zip(entrants, sources[1:] or sources, strict=True):
        forms.append(Form.of(letter, source))
        opened = candidates(source) if len(sources) == 1 else (source,)
        for runtime in entrants[letter]:
            row = _row(
                letter, opened, runtime, rows, sources[0], expected, scoring, options, timeout_s,
                per_class=per_class,
            )  # fmt: skip
            found.append(judged(row, max_drop))
            listener.update("verify", len(found), total, f"{letter} on {runtime}")
    return AccuracyComparison(
        forms=tuple(forms),
        data=data or str(inputs),
        description=rows.description,
        samples=rows.count,
        labelled=rows.targets is not None,
        reference=reference.runtime,
        output=scoring.output,
        probabilities=scoring.probabilities,
        scores=scoring.scores(expected[scoring.output]),
        max_drop=max_drop,
        rows=tuple(found),
        layers=_layers(sources, entrants, rows) if layers else (),
        warnings=tuple(_remarks(sources, entrants, listener)),
    )


def _check_given(sources: Sequence[Artifact]) -> None:
    if not 1 <= len(sources) <= len(LETTERS):
        raise UsageError(
            f"Got {len(sources)} artifacts, expected 1 to {len(LETTERS)}.",
            hint="Give the one that is there, then those that would replace it.",
        )
    for place, source in enumerate(sources):
        for other in sources[:place]:
            if source.digest == other.digest:
                raise UsageError(
                    f"{other.path} and {source.path} are the same artifact, {source.digest[:19]}….",
                    hint="Give two that differ; one alone is held against its reference.",
                )


def _check_labels(rows: LabelledRows, max_drop: float | None, per_class: bool) -> None:
    """Raises UsageError where labels are needed, and are not there or say nothing."""
    wanted = {"--max-drop": max_drop is not None, "--per-class": per_class}
    named = " and ".join(option for option, given in wanted.items() if given)
    if rows.targets is None:
        if named:
            raise UsageError(
                f"Got {named}, but {rows.description} have no labels.",
                hint="Add an array of labels to the file, or leave it out.",
            )
        return
    if per_class and not rows.classes:
        raise UsageError(
            f"Got --per-class, but {rows.description} have values, not classes.",
            hint="Leave it out; whole numbers as labels are classes.",
        )
    if rows.classes and len(np.unique(rows.targets)) == 1:
        raise UsageError(
            f"All {rows.count} labels of {rows.description} are class {rows.targets[0]}: accuracy "
            "on one class says nothing about the others.",
            hint="Give rows of all classes.",
        )


def _runtimes(
    source: Artifact, asked: Sequence[str] | None, device: str, *, alone: bool
) -> list[str]:
    forms = candidates(source) if alone else (source,)
    names = known_runtimes(asked, forms, device)
    if alone or asked is None:
        return names
    able = [name for name in names if source.format in ACCEPTS.get(name, {source.format})]
    if not able:
        opening = [name for name, formats in ACCEPTS.items() if source.format in formats]
        raise UsageError(
            f"None of the runtimes {', '.join(names)} opens {source.path}, which is "
            f"{source.format}.",
            hint=f"Name one that does: {', '.join(opening) or 'none here'}.",
        )
    return able


def _reference(sources: Sequence[Artifact], threads: int) -> Opening:
    """What runs A: of one artifact alone the form nearest to its source, else A itself, as it is
    written where that can be had."""
    if len(sources) == 1:
        return reference_of(candidates(sources[0]), threads)
    if sources[0].format in REFERENCES:
        return reference_of(sources[:1], threads)
    name = known_runtimes(None, sources[:1], "cuda")[0]
    options = SessionOptions(threads=threads)
    return Opening(runtime=name, name=name, forms=sources[:1], options=options)


def _run_first(
    reference: Opening,
    source: Artifact,
    rows: LabelledRows,
    options: SessionOptions,
    timeout_s: float,
) -> tuple[Form, Outputs, Scoring]:
    with WorkerProcess(threads=options.threads, timeout_s=timeout_s) as worker:
        opened = worker.open(reference.runtime, reference.forms, reference.options)
        form = next((f for f in reference.forms if f.digest == opened.artifact_digest), source)
        few = first_rows(rows, 1)
        scoring = Scoring.of(source, rows, run_rows(worker, form, few, source.signature))
        outputs = _named(run_rows(worker, form, rows, source.signature), form, source)
    for name, array in outputs.items():
        if (broken := _not_finite(array)) is not None:
            raise ToolkitError(
                f"A, {form.path} on {reference.runtime}, gives NaN or infinity in {name}, row "
                f"{broken}: there is nothing to hold others against.",
                hint="Mend the model, or leave out the rows that it fails on.",
            )
    return Form.of("A", form), outputs, scoring.settled(outputs)


def _row(
    letter: str,
    forms: Sequence[Artifact],
    runtime: str,
    rows: LabelledRows,
    first: Artifact,
    expected: Outputs,
    scoring: Scoring,
    options: SessionOptions,
    timeout_s: float,
    *,
    per_class: bool,
) -> AccuracyRow:
    """One form on one runtime. One that cannot run is a row with its reason."""
    try:
        with WorkerProcess(threads=options.threads, timeout_s=timeout_s) as worker:
            opened = worker.open(runtime, forms, options)
            if not opened.computes:
                raise UsageError(
                    f"{runtime} computes nothing, so there is nothing to verify.",
                    hint="Name a runtime that computes.",
                )
            form = next((f for f in forms if f.digest == opened.artifact_digest), forms[0])
            outputs = _named(run_rows(worker, form, rows, first.signature), form, first)
            provenance = worker.provenance()
    except ToolkitError as error:
        missing = isinstance(error, UnavailableError)
        return AccuracyRow(
            form=letter,
            runtime=runtime,
            status=Status.UNAVAILABLE if missing else Status.FAILED,
            reason=f"{error.problem} {error.hint}",
        )
    outputs = {n: _like(array, expected[n]) for n, array in outputs.items()}
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
    """With the names that A has for them."""
    names = paired(form.signature.outputs, first.signature.outputs)
    return {names[name]: array for name, array in outputs.items()}


def _like(array: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of another floating-point dtype, as the reference's."""
    both = all(np.issubdtype(one.dtype, np.floating) for one in (array, expected))
    return array.astype(expected.dtype) if both else array


def _not_finite(array: np.ndarray) -> int | None:
    """The first row with NaN or infinity."""
    if not np.issubdtype(array.dtype, np.floating):
        return None
    rows = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    return int(rows.argmax()) if rows.any() else None


def _layers(
    sources: Sequence[Artifact], entrants: Mapping[str, Sequence[str]], rows: LabelledRows
) -> tuple[InnerTensors, ...]:
    """Of each form on the first of its runtimes, on the first rows; a form without inner tensors
    is told with its reason."""
    first, found = sources[0], []
    forms = [candidates(first)[-1], *sources] if len(sources) == 1 else list(sources)
    own = feeds_of(forms[0], rows, first.signature)
    for letter, form in zip(entrants, forms[1:], strict=True):
        feeds = feeds_of(form, rows, first.signature)
        try:
            compared = compare_layers(forms[0], form, entrants[letter][0], own, feeds)
        except ToolkitError as error:
            found.append(InnerTensors(form=letter, reason=f"{error.problem} {error.hint}"))
        else:
            found.append(InnerTensors(form=letter, layers=compared))
    return tuple(found)


def _remarks(
    sources: Sequence[Artifact], entrants: Mapping[str, Sequence[str]], listener: Progress
) -> list[str]:
    found = []
    if len(sources) == 1:
        found = remarks_on(sources[0], [name for names in entrants.values() for name in names])
    for remark in found:
        listener.note(f"warning: {remark}")
    return found

"""Compare the accuracy of variants of a model with that of the first, on the same samples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runtimes import ACCEPTS
from toolkit.core.artifact import Artifact
from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.progress import Progress, Silent
from toolkit.core.session import SessionOptions
from toolkit.core.specs import paired
from toolkit.exporting.check_layers import compare_layers
from toolkit.measuring.machine.environment import session_options
from toolkit.measuring.workers.client import check_timeout
from toolkit.parity.paired import check_max_drop
from toolkit.sources.isolated_backend import sharing_files
from toolkit.sources.labelled_data import (
    LabelledRows,
    check_rows,
    feeds_of,
    load_rows,
    require_classes,
)
from toolkit.sources.reference_runtime import REFERENCES, Opening, reference_of
from toolkit.sources.resolve import candidates, open_artifact
from toolkit.sources.runtime_selection import known_runtimes, remarks_on
from toolkit.verification.reference_run import ReferenceRun
from toolkit.verification.report import (
    AccuracyComparison,
    Form,
    InnerTensors,
    judged,
)

Named = str | os.PathLike[str]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@sharing_files
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
    """Compare the outputs and the accuracy of artifacts with those of the first, A.

    A runs once, as a reference. Each other artifact runs on every requested runtime that opens it,
    each in its own process. A single artifact is compared with its reference. `max_drop` is the
    largest allowed drop of the accuracy, in percentage points, or rise of the mean squared error,
    in per cent. Without it, the tolerance of the coarser of the two precisions decides. Raises
    UsageError for samples that do not fit, invalid or missing labels, runtimes of which none opens
    an artifact, and an artifact given twice; also raises what A raises, because without it there is
    nothing to compare with.
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
    reference_run = ReferenceRun.of(sources[0], reference, rows, timeout_s=timeout_s)
    found, forms, total = [], [reference_run.form], sum(len(names) for names in entrants.values())
    for letter, source in zip(entrants, sources[1:] or sources, strict=True):
        forms.append(Form.of(letter, source))
        opened = candidates(source) if len(sources) == 1 else (source,)
        for runtime in entrants[letter]:
            row = reference_run.hold(
                letter, opened, runtime, options, timeout_s=timeout_s, per_class=per_class
            )
            found.append(judged(row, max_drop))
            listener.update("verify", len(found), total, f"{letter} on {runtime}")
    return AccuracyComparison(
        forms=tuple(forms),
        data=data or str(inputs),
        description=rows.description,
        samples=rows.count,
        labelled=rows.targets is not None,
        reference=reference.runtime,
        output=reference_run.scoring.output,
        probabilities=reference_run.scoring.probabilities,
        scores=reference_run.scores(),
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
                    hint="Give two that differ; one alone is compared with its reference.",
                )


def _check_labels(rows: LabelledRows, max_drop: float | None, per_class: bool) -> None:
    """Raise UsageError for labels that do not fit the options, or are all of one class."""
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
    require_classes(rows)


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
    """Return how to run A: without optimisation if the runtime can do that.

    For a single artifact, A is its variant nearest to the source.
    """
    if len(sources) == 1:
        return reference_of(candidates(sources[0]), threads)
    if sources[0].format in REFERENCES:
        return reference_of(sources[:1], threads)
    name = known_runtimes(None, sources[:1], "cuda")[0]
    options = SessionOptions(threads=threads)
    return Opening(runtime=name, name=name, forms=sources[:1], options=options)


def _layers(
    sources: Sequence[Artifact], entrants: Mapping[str, Sequence[str]], rows: LabelledRows
) -> tuple[InnerTensors, ...]:
    """Compare the inner tensors of each variant with A's, on the first batch of the samples.

    Each variant runs on the first of its runtimes. If its inner tensors cannot be compared, the
    result has the reason.
    """
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

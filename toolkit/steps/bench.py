"""Measure an artifact on several runtimes, side by side."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from toolkit.core.measurement import Result
from toolkit.core.progress import Progress, Silent
from toolkit.measuring.engine import Procedure
from toolkit.measuring.traffic import Traffic
from toolkit.steps.capture import Example
from toolkit.steps.choices import known_runtimes, unopened
from toolkit.steps.contender import Entry
from toolkit.steps.files import sharing_files
from toolkit.steps.forms import forms_of
from toolkit.steps.inputs import InputRequest, input_source, resolve_batches
from toolkit.steps.rows import Group, measure_groups
from toolkit.steps.settings import Settings

TOLERANCE = (
    "Outputs may differ from the reference's by {:g} of the largest magnitude, as --tolerance "
    "says; whether that is the same model was not checked."
)


@sharing_files
def bench(
    artifact: str | os.PathLike[str],
    *,
    to: Sequence[str] | None = None,
    example: Example | None = None,
    runtimes: Sequence[str] | None = None,
    device: str = "cpu",
    batches: Sequence[int] | None = None,
    scopes: Sequence[str] | None = None,
    threads: int | None = None,
    cpus: Collection[int] | None = None,
    tuning: Mapping[str, Mapping[str, str]] | None = None,
    procedure: Procedure | None = None,
    traffic: Traffic | None = None,
    inputs: InputRequest | None = None,
    timeout_s: float = 300.0,
    allow_fallback: bool = False,
    tolerance: float | None = None,
    out: str | os.PathLike[str] = "results",
    progress: Progress | None = None,
) -> Result:
    """Measures every runtime at every batch, and stores the result as `out/<id>.json`.

    Each target in `to` is exported first, with proof, to a place that is removed again; of a user's
    code, or a family, that is ONNX unless told. `example` is what a user's module is called with.
    Without `runtimes`, all but null that open one of the artifact's forms on `device` (cpu, or
    cuda: there, those that are named for the CPU mean their like on a GPU) are measured; without
    `batches`, the one that the model or `inputs` fix, else 1. `cpus` pins every worker to these
    cores; `tuning` gives options of a runtime's own by its name. The rows of a batch are measured
    in turn, a block each, in a process each; with `traffic`, in place of `scopes`, they answer
    queries, a window each. `allow_fallback` takes a row that ran in another precision or on another
    device than it was asked for, with a warning. Outputs that are further from the reference's than
    the table of tolerances allows are judged by the float64 oracle, as `export` judges them;
    `tolerance`, between 0 and 1, replaces both by that part of the largest magnitude, with a
    warning. A row that fails keeps its reason and what was
    measured; the others go on. Ctrl-C stores what there is, then raises KeyboardInterrupt. Raises
    SourceError, IntegrityError, UnknownNameError, UsageError before anything is started.
    """
    listener = progress or Silent()
    settings = Settings.parse(
        scopes=scopes,
        threads=threads,
        cpus=cpus,
        tuning=tuning,
        procedure=procedure,
        timeout_s=timeout_s,
        allow_fallback=allow_fallback,
        tolerance=tolerance,
        traffic=traffic,
    )
    if runtimes is not None:
        settings.check_runtimes(known_runtimes(runtimes, (), device))
    with forms_of(artifact, to, example, inputs or InputRequest(), listener) as forms:
        names = known_runtimes(runtimes, forms.artifacts, device)
        settings.check_runtimes(names)
        feeding = input_source(forms.source, forms.request)
        sizes = resolve_batches(forms.source, batches, forms.request)
        entries = [Entry(artifacts=forms.artifacts, runtime=name) for name in names]
        return measure_groups(
            [Group(batch=batch, inputs=feeding, entries=entries) for batch in sizes],
            settings,
            plan={
                "artifact": forms.name,
                "artifact_digest": forms.source.digest,
                "exports": forms.exports,
                "runtimes": names,
                "batches": sizes,
                "inputs": feeding.description,
            },
            out=Path(out),
            progress=listener,
            warnings=[
                *forms.warnings,
                *filter(None, (unopened(f, names) for f in forms.named)),
                *([TOLERANCE.format(tolerance)] if tolerance is not None else []),
            ],
        )

"""Measure the speed of an artifact on several runtimes, in turn."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from toolkit.benchmarking.row_run import Entry
from toolkit.benchmarking.runner import Group, measure_groups
from toolkit.benchmarking.settings import Settings
from toolkit.benchmarking.variants import forms_of
from toolkit.core.measurement import Result
from toolkit.core.progress import Progress, Silent
from toolkit.measuring.load_test.scenarios import Traffic
from toolkit.measuring.timing.engine import Procedure
from toolkit.sources.capture import Example
from toolkit.sources.inputs import InputRequest, input_source, resolve_batches
from toolkit.sources.isolated_backend import sharing_files
from toolkit.sources.runtime_selection import known_runtimes, unopened

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
    """Measure every runtime at every batch, and store the result as `out/<id>.json`.

    The artifact is first exported to each target in `to`, with proof, in a temporary directory; for
    user code or a family, `to` is ONNX by default. `example` is what a user's module is called
    with. `device` is cpu or cuda; on cuda, the name of a CPU runtime stands for its GPU
    counterpart. By default, `runtimes` are all on `device` that open a variant of the artifact,
    except null and onnx-reference, and `batches` is the one that the model or `inputs` fix, else 1.
    `cpus` pins every worker to these cores; `tuning` has options of single runtimes, by runtime
    name.

    The rows of a batch run in turn, one block each, each in its own process. With `traffic`, which
    excludes `scopes`, they answer queries, one window each. `allow_fallback` accepts a row that
    fell back to another precision or device, with a warning. Outputs that differ from the
    reference's by more than the table of tolerances allows are judged by the float64 oracle, as in
    `export`. `tolerance`, between 0 and 1, replaces both by a largest difference relative to the
    largest magnitude, with a warning.

    A row that fails keeps the reason and its measurements so far; the others continue. On Ctrl-C,
    the rows so far are stored, then KeyboardInterrupt is raised. Before anything is measured,
    raises SourceError, IntegrityError, UnknownNameError, UsageError, UnavailableError, and what
    `export` raises. Raises StorageError, with the result, if `out` cannot be written at the end.
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

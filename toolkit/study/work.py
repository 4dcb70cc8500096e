"""Functions that run the steps of cells on the output of their parents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runtimes import ACCEPTS
from toolkit.benchmarking.bench_training import bench_training
from toolkit.benchmarking.row_run import Entry
from toolkit.benchmarking.runner import Group, measure_groups
from toolkit.benchmarking.settings import Settings
from toolkit.core.artifact import Artifact
from toolkit.core.documents import seal, write_document
from toolkit.core.errors import CheckFailedError, UnavailableError
from toolkit.core.measurement import Result, Status
from toolkit.core.progress import Progress
from toolkit.exporting.export import export
from toolkit.measuring.machine.gpus import describe_gpus
from toolkit.measuring.timing.engine import Procedure
from toolkit.quantization.calibrate import calibrate
from toolkit.sources.inputs import InputRequest, input_source
from toolkit.sources.resolve import candidates, open_artifact
from toolkit.sources.runtime_selection import known_runtimes
from toolkit.study.job import Job
from toolkit.study.store import ARTIFACT, CHECKPOINT, REPORTS
from toolkit.training.train import train
from toolkit.verification.verify import verify

TIMEOUT_S = 600.0
FLOAT = "float32"
PROCEDURE = ("warmup", "runs", "max_seconds", "processes")


@dataclass(frozen=True, kw_only=True)
class Made:
    """Digest or id of the output of a cell, by kind, and its warnings."""

    output: Mapping[str, str]
    warnings: Sequence[str] = field(default_factory=tuple)


def work(job: Job, progress: Progress) -> Made:
    """Run the step of `job`, and write the output to its partial directory.

    Raises the errors of the step, UnavailableError if this machine lacks the GPU that `gpu` names,
    and CheckFailedError for a benchmark without a measured row.
    """
    values = dict(job.values)
    if (kind := values.pop("gpu", None)) is not None:
        names = [str(gpu["name"]) for gpu in describe_gpus()[0]]
        if not any(kind.lower() in name.lower() for name in names):
            raise UnavailableError(
                f"The cell asks for a GPU {kind}; this machine has {', '.join(names) or 'none'}.",
                hint="Run the study where there is one, or on a Ray cluster that has one.",
            )
    return WORK[job.step](replace(job, values=values), progress)


def _train(job: Job, progress: Progress) -> Made:
    values = dict(job.values)
    framework, _, mode = values.pop("trainer", "torch").partition(":")
    augmentation = values.pop("augmentation", None)
    if augmentation is not None:
        values["augmentation"] = tuple(augmentation)
    made = train(
        **values,
        framework=framework,
        mode=mode or None,
        data_dir=job.data_dir,
        out=job.partial / CHECKPOINT,
        progress=progress,
    )
    return Made(output={CHECKPOINT: made.digest})


def _export(job: Job, progress: Progress) -> Made:
    made = export(
        job.checkpoint,
        to=job.values["to"],
        passes=job.values.get("passes", ()),
        out=job.partial / ARTIFACT,
        progress=progress,
    )
    return Made(output={ARTIFACT: made.artifact.digest})


def _calibrate(job: Job, progress: Progress) -> Made:
    (source,) = job.forms
    made = calibrate(
        source,
        data=job.dimensions["data"],
        data_dir=job.data_dir,
        out=job.partial / ARTIFACT,
        progress=progress,
        **job.values,
    )
    return Made(output={ARTIFACT: made.artifact.digest}, warnings=made.warnings)


def _verify(job: Job, progress: Progress) -> Made:
    values = job.values
    source = open_artifact(job.checkpoint)
    forms = [open_artifact(place) for place in job.forms]
    device, asked = values.get("device", "cpu"), values.get("runtimes")
    names = known_runtimes(
        asked, [form for one in (source, *forms) for form in candidates(one)], device
    )
    able = [form for form in forms if any(_opens(name, form) for name in names)]
    left_out = [form for form in forms if form not in able]
    found = verify(
        [source.directory, *(form.directory for form in able)],
        data=job.dimensions["data"],
        data_dir=job.data_dir,
        runtimes=names,
        device=device,
        max_drop=values.get("max_drop"),
        progress=progress,
    )
    document = seal("toolkit.study-verify/1", {"report": found.to_json()})
    write_document(job.partial / REPORTS["verify"], document)
    return Made(
        output={"report": document["digest"]},
        warnings=[
            *found.warnings,
            *(f"No runtime that was asked for opens {form.format}." for form in left_out),
        ],
    )


def _bench(job: Job, progress: Progress) -> Made:
    values = job.values
    source = open_artifact(job.checkpoint)
    forms = [source, *(open_artifact(place) for place in job.forms)]
    names = known_runtimes(values.get("runtimes"), forms, values.get("device", "cpu"))
    settings = Settings.parse(
        scopes=values.get("scopes"),
        threads=values.get("threads"),
        cpus=None,
        tuning=_tuning(values.get("tuning", {})),
        procedure=_procedure(values),
        timeout_s=TIMEOUT_S,
    )
    settings.check_runtimes(names)
    group = Group(
        batch=values.get("batch", 1),
        inputs=input_source(source, InputRequest(data=job.dimensions["data"], data_dir=_path(job))),
        entries=[entry for name in names for entry in _entries(name, forms)],
    )
    result = measure_groups(
        [group],
        settings,
        plan={
            "artifact": str(source.directory),
            "runtimes": [entry.runtime for entry in group.entries],
            "batches": [group.batch],
            "inputs": group.inputs.description,
        },
        out=job.partial,
        progress=progress,
    )
    return _measured(result)


def _bench_training(job: Job, progress: Progress) -> Made:
    values = dict(job.values)
    batch = values.pop("batch", None)
    procedure = _procedure(values, max_seconds=60.0)
    for name in PROCEDURE:
        values.pop(name, None)
    result = bench_training(
        values.pop("model"),
        batches=None if batch is None else [batch],
        procedure=procedure,
        data_dir=job.data_dir,
        out=job.partial,
        progress=progress,
        **values,
    )
    return _measured(result)


WORK: Mapping[str, Callable[[Job, Progress], Made]] = {
    "train": _train,
    "export": _export,
    "calibrate": _calibrate,
    "verify": _verify,
    "bench": _bench,
    "bench-training": _bench_training,
}


def _measured(result: Result) -> Made:
    """Return the output of a benchmark. Raises CheckFailedError if no row is ok."""
    if not any(row.status is Status.OK for row in result.rows):
        reasons = dict.fromkeys(f"{row.runtime}: {row.reason}" for row in result.rows)
        raise CheckFailedError(
            f"No row could be measured. {' '.join(reasons)}", hint="See each row's reason."
        )
    return Made(output={"result": result.id}, warnings=result.warnings)


def _opens(runtime: str, form: Artifact) -> bool:
    return form.format in ACCEPTS.get(runtime, {form.format})


def _entries(runtime: str, forms: Sequence[Artifact]) -> list[Entry]:
    """Return a row for each variant that the runtime opens.

    If it opens none, return one for the first variant, so that the result has the reason. Only
    rows of float32 variants can fail because of their outputs or precision.
    """
    able = [form for form in forms if _opens(runtime, form)]
    return [
        Entry(artifacts=candidates(form), runtime=runtime, judged=form.precision == FLOAT)
        for form in able or forms[:1]
    ]


def _procedure(values: Mapping[str, Any], **usual: Any) -> Procedure:
    return Procedure(**usual | {name: values[name] for name in PROCEDURE if name in values})


def _tuning(given: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return options by runtime, from names such as "onnxruntime.graph_optimization_level"."""
    found: dict[str, dict[str, str]] = {}
    for name, value in given.items():
        runtime, _, option = name.partition(".")
        found.setdefault(runtime, {})[option] = str(value)
    return found


def _path(job: Job) -> Path | None:
    return None if job.data_dir is None else Path(job.data_dir)

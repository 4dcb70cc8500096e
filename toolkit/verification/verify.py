"""Compare every runtime with the reference on a whole test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack, overload

import numpy as np

from toolkit.core.artifact import Artifact
from toolkit.core.codec import encode
from toolkit.core.documents import Json
from toolkit.core.errors import ToolkitError, UnavailableError, UsageError
from toolkit.core.measurement import Agreement, Status
from toolkit.core.progress import Progress, Silent
from toolkit.core.session import Provenance, SessionOptions
from toolkit.core.specs import Outputs, TaskKind
from toolkit.data.base import Split
from toolkit.data.scores import LOSSES, METRICS, loss_of, metric_of, share_equal, top1
from toolkit.measuring.machine.environment import session_options
from toolkit.measuring.workers.client import WorkerProcess, check_timeout
from toolkit.parity.outputs import compare_outputs
from toolkit.parity.tolerances import tolerance_for
from toolkit.sources.inputs import load_test_rows
from toolkit.sources.isolated_backend import sharing_files
from toolkit.sources.reference_runtime import reference_runtime, reference_worker
from toolkit.sources.resolve import candidates, open_artifact
from toolkit.sources.runtime_selection import known_runtimes, remarks_on
from toolkit.verification.compare_accuracy import Named, compare_accuracy
from toolkit.verification.report import AccuracyComparison

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class VerifyRow:
    """Result of one runtime on the whole split.

    `scores` are loss and accuracy for classes, mse and mae for values. `agreement` is the share of
    samples with the top-1 class of the reference, None for values.
    """

    runtime: str
    status: Status
    reason: str | None = None
    scores: Mapping[str, float] | None = None
    agreement: float | None = None
    parity: Agreement | None = None
    provenance: Provenance | None = None

    @property
    def passed(self) -> bool:
        return self.status is Status.OK

    def to_json(self) -> Json:
        return {
            "runtime": self.runtime,
            "status": self.status,
            "reason": self.reason,
            "passed": self.passed,
            "scores": self.scores and dict(self.scores),
            "agreement": self.agreement,
            "max_abs": self.parity and self.parity.max_abs,
            "max_rel": self.parity and self.parity.max_rel,
            "provenance": encode(self.provenance),
        }


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Results of all runtimes and of the reference, on the same samples."""

    artifact: str
    data: str
    samples: int
    reference: str
    scores: Mapping[str, float]
    tolerance: Json
    rows: tuple[VerifyRow, ...]
    warnings: tuple[str, ...] = ()

    @property
    def broken(self) -> bool:
        """Whether a runtime ran but did not give the outputs of the model."""
        return any(row.status is Status.FAILED and row.parity is not None for row in self.rows)

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    def to_json(self) -> Json:
        return {
            "schema": "toolkit.verify/2",
            "artifact": self.artifact,
            "data": self.data,
            "samples": self.samples,
            "passed": self.passed,
            "reference": {"runtime": self.reference, "scores": dict(self.scores)},
            "tolerance": self.tolerance,
            "rows": [row.to_json() for row in self.rows],
            "warnings": list(self.warnings),
        }


class VerifyOptions(TypedDict, total=False):
    """Options of `verify`. The last four are for a list of artifacts."""

    data: str | None
    data_settings: Mapping[str, Any] | None
    data_dir: Named | None
    runtimes: Sequence[str] | None
    device: str
    threads: int | None
    timeout_s: float
    progress: Progress | None
    inputs: Named | None
    max_drop: float | None
    per_class: bool
    layers: bool


@overload
def verify(artifact: Named, **options: Unpack[VerifyOptions]) -> Verification: ...


@overload
def verify(
    artifact: list[Any] | tuple[Named, ...], **options: Unpack[VerifyOptions]
) -> AccuracyComparison: ...


def verify(
    artifact: Named | list[Any] | tuple[Named, ...], **options: Unpack[VerifyOptions]
) -> Verification | AccuracyComparison:
    """Compare every runtime, each in its own process, with the reference on a test split of `data`.

    The artifacts of a list are compared with the first of them, or a single one with its reference:
    see toolkit.verification.compare_accuracy.compare_accuracy, which takes all of these options.

    `data_settings` and `data_dir` are as in toolkit.sources.inputs.load_test_rows, `runtimes` and
    `device` as in toolkit.sources.runtime_selection.known_runtimes. A runtime that cannot run or
    exceeds a tolerance is a row with the reason. Raises UsageError if the data does not fit the
    artifact, and what the reference raises, because without it there is nothing to compare with.
    """
    if isinstance(artifact, list | tuple):
        return compare_accuracy(artifact, **options)
    data = options.get("data")
    more = [name for name in ("inputs", "max_drop", "per_class", "layers") if options.get(name)]
    if data is None or more:
        got = f"{', '.join(more)} for one artifact" if more else "no data to verify on"
        raise UsageError(
            f"Got {got}.",
            hint="Give --data NAME; in Python, give an artifact in a list for the rest, which is "
            "compared with its reference.",
        )
    return _verify_alone(
        artifact,
        data=data,
        data_settings=options.get("data_settings"),
        data_dir=options.get("data_dir"),
        runtimes=options.get("runtimes"),
        device=options.get("device", "cpu"),
        threads=options.get("threads"),
        timeout_s=options.get("timeout_s", 300.0),
        progress=options.get("progress"),
    )


@sharing_files
def _verify_alone(
    artifact: Named,
    *,
    data: str,
    data_settings: Mapping[str, Any] | None,
    data_dir: Named | None,
    runtimes: Sequence[str] | None,
    device: str,
    threads: int | None,
    timeout_s: float,
    progress: Progress | None,
) -> Verification:
    options = session_options(threads)
    check_timeout(timeout_s)
    source = open_artifact(artifact)
    choices = candidates(source)
    names = known_runtimes(runtimes, choices, device)
    tolerance = tolerance_for(source.precision)
    listener = progress or Silent()
    split = load_test_rows(
        source,
        data,
        settings=data_settings,
        directory=None if data_dir is None else Path(data_dir),
        progress=listener,
    )
    _check_fit(source, data, split)
    reference = reference_runtime(choices)
    remarks = remarks_on(source, names)
    for remark in remarks:
        listener.note(f"warning: {remark}")
    listener.note(f"reference: {reference} over {len(split)} test rows of {data}")
    with reference_worker(choices, threads=options.threads, timeout_s=timeout_s) as worker:
        expected = _run_split(worker, source, split)
    rows = []
    for done, runtime in enumerate(names):
        rows.append(_verify(runtime, choices, split, expected, options, timeout_s))
        listener.update("verify", done + 1, len(names), runtime)
    return Verification(
        artifact=str(source.directory),
        data=data,
        samples=len(split),
        reference=reference,
        scores=_scores(_first(source, expected), split),
        tolerance={
            "absolute": tolerance.absolute,
            "relative": tolerance.relative,
            "agreement": tolerance.agreement,
            "why": tolerance.why,
        },
        rows=tuple(rows),
        warnings=tuple(remarks),
    )


def _verify(
    runtime: str,
    choices: Sequence[Artifact],
    split: Split,
    expected: Outputs,
    options: SessionOptions,
    timeout_s: float,
) -> VerifyRow:
    source = choices[0]
    tolerance = tolerance_for(source.precision)
    try:
        with WorkerProcess(threads=options.threads, timeout_s=timeout_s) as worker:
            if not worker.open(runtime, choices, options).computes:
                raise UsageError(
                    f"{runtime} computes nothing, so there is nothing to verify.",
                    hint="Name a runtime that computes.",
                )
            outputs = _run_split(worker, source, split)
            provenance = worker.provenance()
    except ToolkitError as error:
        missing = isinstance(error, UnavailableError)
        return VerifyRow(
            runtime=runtime,
            status=Status.UNAVAILABLE if missing else Status.FAILED,
            reason=f"{error.problem} {error.hint}",
        )
    parity = compare_outputs(outputs, expected, tolerance)
    found, wanted = _first(source, outputs), _first(source, expected)
    agreement = share_equal(top1(found), top1(wanted)) if _classes(split) else None
    reason = parity.reason
    if reason is None and agreement is not None and agreement < tolerance.agreement:
        reason = f"top-1 agrees on {agreement:.2%} of rows, expected {tolerance.agreement:.2%}"
    return VerifyRow(
        runtime=runtime,
        status=Status.FAILED if reason else Status.OK,
        reason=reason,
        scores=_scores(found, split),
        agreement=agreement,
        parity=parity,
        provenance=provenance,
    )


def _check_fit(source: Artifact, data: str, split: Split) -> None:
    """Raise UsageError unless the model has one input and one output that fit the data set.

    The batch of the input must be dynamic.
    """
    inputs, outputs = source.signature.inputs, source.signature.outputs
    row = split.inputs.shape[1:]
    fits = (
        len(inputs) == len(outputs) == 1
        and len(inputs[0].shape) == len(row) + 1
        and all(not isinstance(d, int) or d == r for d, r in zip(inputs[0].shape[1:], row))  # noqa: B905
        and inputs[0].dtype == split.inputs.dtype.name
        and not isinstance(inputs[0].shape[0], int)
    )
    if not fits:
        raise UsageError(
            f"{source.path} takes {source.signature.describe_inputs()}; the rows of {data} are "
            f"{split.inputs.dtype}{list(row)}, in batches of up to {BATCH}.",
            hint="Choose the data set that the model was made for, and a model with a dynamic "
            "batch.",
        )
    given = outputs[0]
    least = int(split.targets.max()) + 1 if _classes(split) else split.targets.shape[1]
    extent = given.shape[1] if len(given.shape) == 2 else 0
    fits = not isinstance(extent, int) or (extent >= least if _classes(split) else extent == least)
    if not fits or not given.dtype.startswith("float"):
        wanted = f"logits [batch, {least} or more]" if _classes(split) else f"[batch, {least}]"
        raise UsageError(
            f"{source.path} gives {given}; expected {wanted} of a floating-point dtype.",
            hint="Verify a model whose only output is its logits, or its values.",
        )


def _classes(split: Split) -> bool:
    return split.targets.ndim == 1


def _scores(outputs: np.ndarray, split: Split) -> dict[str, float]:
    """Return the loss and the metric of the outputs, by name."""
    kind = TaskKind.CLASSIFICATION if _classes(split) else TaskKind.REGRESSION
    loss = "loss" if _classes(split) else LOSSES[kind]
    return {
        loss: loss_of(kind, outputs, split.targets),
        METRICS[kind]: metric_of(kind, outputs, split.targets),
    }


def _run_split(worker: WorkerProcess, source: Artifact, split: Split) -> Outputs:
    """Return the outputs for all samples, run in batches of BATCH; the last may be smaller."""
    name = source.signature.inputs[0].name
    starts = range(0, len(split), BATCH)
    parts = [worker.run({name: split.inputs[start : start + BATCH]}) for start in starts]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _first(source: Artifact, outputs: Outputs) -> np.ndarray:
    return outputs[source.signature.outputs[0].name]

"""Flat records of the results of a study, from which its tables and plots are made.

`trainings` has a record for each training, failed ones included, and `epochs` for each epoch.
`rows` has a record for each row of a benchmark, `training_rows` for each row of a training
benchmark. `accuracy` has a record for the reference of each verification, and for each variant on
each runtime. A record has the dimensions of its cell: model, data, seed, options and so on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtimes import ACCEPTS
from toolkit.core.artifact import WEIGHTS, Checkpoint
from toolkit.core.codec import Count, decode
from toolkit.core.documents import read_as
from toolkit.core.errors import SourceError, ToolkitError
from toolkit.core.measurement import Result
from toolkit.core.specs import TaskKind
from toolkit.data.scores import LOSSES, METRICS
from toolkit.measuring.figures.records import MIB, Record, row_records
from toolkit.results import store as results
from toolkit.study.document import RECORD_KINDS
from toolkit.study.store import ARTIFACT, CHECKPOINT, REPORTS, Outcome, State, Store, StoredStudy
from toolkit.trainers.run import TrainingLog

VERIFY_SCHEMA = "toolkit.study-verify/1"
S = 1e9  # nanoseconds per second


@dataclass(frozen=True, kw_only=True)
class _Exported:
    """Dimensions of an export that name the variant."""

    to: str
    passes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Calibrated:
    """Dimensions of a calibration that name the variant."""

    preset: str
    method: str = "minmax"
    max_drop: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Drop:
    value: float | None = None
    ci95: tuple[float | None, float | None] | None = None


@dataclass(frozen=True, kw_only=True)
class _Form:
    letter: str
    digest: str
    format: str


@dataclass(frozen=True, kw_only=True)
class _Reference:
    runtime: str
    scores: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class _Verified:
    """A row of a verification."""

    form: str
    runtime: str
    status: str
    reason: str | None
    departs: str | None
    scores: Mapping[str, float | None] | None
    agreement: float | None
    max_abs: float | None
    drop: _Drop | None
    gate: str | None


@dataclass(frozen=True, kw_only=True)
class _Report:
    samples: Count
    forms: tuple[_Form, ...]
    a: _Reference
    rows: tuple[_Verified, ...]


@dataclass(frozen=True, kw_only=True)
class _Verification:
    """Part of `verify.json` from which records are made."""

    report: _Report


@dataclass(frozen=True, kw_only=True)
class Records:
    """Records of a study, by kind.

    `results` are the stored results that the rows are from. `outcomes` are those of the cells that
    have one, in the order of `study.json`, and `missing` is the number of the other cells.
    `unreadable` has a sentence for each file that is left out.
    """

    study: StoredStudy
    kinds: Mapping[str, Sequence[Record]]
    results: Sequence[Result]
    outcomes: Sequence[Outcome]
    missing: int
    unreadable: Sequence[str]


def records_of(directory: Path) -> Records:
    """Read the records of a study.

    Damaged files of a cell are left out, with a sentence in `unreadable`. Raises SourceError if
    the directory is not a study or an export or calibration has invalid dimensions, IntegrityError
    if `study.json` was altered.
    """
    store = Store(directory=directory)
    study = store.read()
    found = [store.outcome(cell.id) for cell in study.cells]
    outcomes = [one for one in found if one is not None]
    done = [one for one in outcomes if one.state is State.DONE]
    forms = _forms(done)
    damages = [store.damage(cell.id) for cell in study.cells]
    unreadable = [f"{damage} It is left out." for damage in damages if damage is not None]
    kinds: dict[str, list[Record]] = {kind: [] for kind in RECORD_KINDS}
    measured: list[Result] = []
    for outcome in outcomes:
        place = store.place(outcome.id)
        own = {**_plain(outcome.dimensions), "cell": outcome.id, "machine": outcome.machine}
        if outcome.step in ("bench", "bench-training"):
            kind = "rows" if outcome.step == "bench" else "training_rows"
            for _, result in results.load_readable(results.paths(place), unreadable.append):
                measured.append(result)
                for row in row_records(result):
                    named = _form(row, forms) if kind == "rows" else {"trainer": row["runtime"]}
                    kinds[kind].append({**own, **row, **named})
            continue
        try:
            made = _made_records(outcome, place, forms)
        except ToolkitError as error:
            unreadable.append(f"{error.problem} It is left out.")
            continue
        for kind, records in made.items():
            kinds[kind] += [{**own, **record} for record in records]
    return Records(
        study=study,
        kinds=kinds,
        results=measured,
        outcomes=outcomes,
        missing=len(found) - len(outcomes),
        unreadable=unreadable,
    )


def _made_records(
    outcome: Outcome, place: Path, forms: Mapping[str, Record]
) -> Mapping[str, Sequence[Record]]:
    """Return the records of a cell that is not a benchmark, by kind.

    Only trainings and finished verifications have some. Raises SourceError or IntegrityError for a
    damaged file.
    """
    if outcome.step == "train" and outcome.state is not State.DONE:
        return {"trainings": [{"status": outcome.state, "reason": outcome.reason}]}
    if outcome.step == "train":
        trained, epochs = training_records(Checkpoint.load(place / CHECKPOINT))
        return {"trainings": [trained], "epochs": epochs}
    if outcome.step == "verify" and outcome.state is State.DONE:
        stored = read_as(place / REPORTS["verify"], VERIFY_SCHEMA, _Verification)
        return {"accuracy": list(_accuracy(stored.report, forms))}
    return {}


def _plain(dimensions: Mapping[str, Any]) -> Record:
    """Return the dimensions without those that list the rows or scopes of a benchmark."""
    return {k: v for k, v in dimensions.items() if k not in ("runtimes", "trainers", "scopes")}


def _form(row: Record, forms: Mapping[str, Record]) -> Record:
    """Return the variant of a row, by the digest of its artifact; "checkpoint" by default.

    For a row that is not ok, return the format that its runtime accepts, if there is only one.
    """
    takes = sorted(ACCEPTS.get(row["runtime"], ()))
    if row["status"] != "ok" and len(takes) == 1:
        return {"form": str(takes[0])}
    return forms.get(row["artifact_digest"], {"form": "checkpoint"})


def _forms(done: Sequence[Outcome]) -> dict[str, Record]:
    """Return the name of each exported or calibrated variant, by digest."""
    found: dict[str, Record] = {}
    for outcome in done:
        what = f"the dimensions of {outcome.id}"
        if outcome.step == "export":
            made = decode(outcome.dimensions, _Exported, what)
            found[outcome.output.get(ARTIFACT, "")] = {"form": " ".join([made.to, *made.passes])}
        elif outcome.step == "calibrate":
            cast = decode(outcome.dimensions, _Calibrated, what)
            mixed = " mixed" if cast.max_drop is not None else ""
            form = f"onnx int8 ({cast.preset}, {cast.method}{mixed})"
            found[outcome.output.get(ARTIFACT, "")] = {"form": form}
    return found


def training_records(checkpoint: Checkpoint) -> tuple[Record, list[Record]]:
    """Return the record of a training, and one for each of its epochs.

    Raises SourceError for a checkpoint that has no finished epoch or was not written by a training,
    IntegrityError if a file of it was altered.
    """
    log = decode(checkpoint.training, TrainingLog, f"how {checkpoint.directory} was trained")
    return _training(checkpoint, log), list(_epochs(checkpoint, log))


def _training(checkpoint: Checkpoint, log: TrainingLog) -> Record:
    history, inference = log.history, log.inference
    kind = _kind(checkpoint)
    metric = METRICS[kind]
    best = max if kind is TaskKind.CLASSIFICATION else min
    seconds = [epoch.train_ns / S for epoch in history]
    known = [epoch.test_metric for epoch in history if epoch.test_metric is not None]
    return {
        "status": "ok",
        "framework": log.framework,
        "mode": log.mode,
        "train_rows": log.rows["train"],
        "test_rows": log.rows["test"],
        "train_s": sum(seconds),
        "epoch_s": sum(seconds) / len(seconds),
        "prepare_s": (log.prepare_ns or 0) / S,
        "test_s": history[-1].test_ns / S,
        "images_per_s": sum(epoch.samples_per_s for epoch in history) / len(history),
        "peak_mib": max(epoch.peak_bytes for epoch in history) / MIB,
        "state_dict_bytes": sum(array.nbytes for array in checkpoint.weights().values()),
        "weights_bytes": checkpoint.files[WEIGHTS].size_bytes,
        f"first_train_{metric}": history[0].train_metric,
        f"last_train_{metric}": history[-1].train_metric,
        f"best_test_{metric}": best(known, default=None),
        f"test_{metric}": history[-1].test_metric,
        f"test_{_loss(kind)}": history[-1].test_loss,
        "inference_samples_per_s": inference and inference.ns and inference.rows * S / inference.ns,
    }


def _epochs(checkpoint: Checkpoint, log: TrainingLog) -> Iterator[Record]:
    kind = _kind(checkpoint)
    for number, epoch in enumerate(log.history, 1):
        yield {
            "epoch": number,
            "train_s": epoch.train_ns / S,
            "test_s": epoch.test_ns / S,
            "train_loss": epoch.train_loss,
            "test_loss": epoch.test_loss,
            f"train_{METRICS[kind]}": epoch.train_metric,
            f"test_{METRICS[kind]}": epoch.test_metric,
            "learning_rate": epoch.learning_rate,
            "images_per_s": epoch.samples_per_s,
            "peak_mib": epoch.peak_bytes / MIB,
        }


def _kind(checkpoint: Checkpoint) -> TaskKind:
    if checkpoint.spec.task is None:
        raise SourceError(
            f"{checkpoint.directory} has no task: it is not a model that the toolkit trained.",
            hint="Give a checkpoint of `toolkit train`.",
        )
    return checkpoint.spec.task.kind


def _loss(kind: TaskKind) -> str:
    return "loss" if kind is TaskKind.CLASSIFICATION else LOSSES[kind]


def _accuracy(report: _Report, forms: Mapping[str, Record]) -> Iterator[Record]:
    """Yield a record of the reference A, then one of each variant on each runtime."""
    known = {form.letter: forms.get(form.digest, {"form": form.format}) for form in report.forms}
    yield {
        **known.get("A", {}),
        "runtime": report.a.runtime,
        "status": "ok",
        **_scores(report.a.scores),
        "test_rows": report.samples,
    }
    for row in report.rows:
        drop = row.drop or _Drop()
        low, high = drop.ci95 or (None, None)
        found = {
            **known.get(row.form, {}),
            "runtime": row.runtime,
            "status": row.status,
            "reason": row.reason or row.departs,
            **_scores(row.scores or {}),
            "test_rows": report.samples,
            "agreement": row.agreement,
            "max_abs": row.max_abs,
            "drop": drop.value,
            "drop_low": low,
            "drop_high": high,
            "gate": row.gate,
        }
        yield {name: value for name, value in found.items() if value is not None}


def _scores(scores: Mapping[str, float | None]) -> Record:
    """Return the scores, with top-1 accuracy named "accuracy" as in the records of trainings."""
    return {("accuracy" if name == "top1" else name): value for name, value in scores.items()}

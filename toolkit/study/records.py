"""All that a study came to, as flat records: what its tables and plots are made of.

`trainings` has a record for each model that was trained, `epochs` for each of its epochs, `rows`
for each runtime of each measurement, `training_rows` for each trainer of each, `accuracy` for each
form on each runtime. Each has the dimensions of its cell: model, data, seed, options and so on.
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
from toolkit.measuring.records import MIB, Record, row_records
from toolkit.results import store as results
from toolkit.study.document import RECORD_KINDS
from toolkit.study.store import ARTIFACT, CHECKPOINT, REPORTS, Outcome, State, Store, StoredStudy
from toolkit.training.run import TrainingLog

VERIFY_SCHEMA = "toolkit.study-verify/1"
S = 1e9


@dataclass(frozen=True, kw_only=True)
class _Exported:
    """The dimensions of an export."""

    to: str
    passes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Calibrated:
    """The dimensions of a calibration."""

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
    """`verify.json`, as far as records are made of it."""

    report: _Report


@dataclass(frozen=True, kw_only=True)
class Records:
    """By kind; `results` are those that the rows are from, `outcomes` all cells, in the order of
    work, and `missing` those that are still to do. `unreadable` names files that are left out."""

    study: StoredStudy
    kinds: Mapping[str, Sequence[Record]]
    results: Sequence[Result]
    outcomes: Sequence[Outcome]
    missing: int
    unreadable: Sequence[str]


def records_of(directory: Path) -> Records:
    """Read a study. Raises SourceError if it is none, IntegrityError if its plan was altered.

    What is damaged in a cell is left out, with a sentence in `unreadable`.
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
    """Return the records of a cell that measured nothing, by kind. Raises ToolkitError."""
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
    """Without what sets rows of one cell apart."""
    return {k: v for k, v in dimensions.items() if k not in ("runtimes", "trainers", "scopes")}


def _form(row: Record, forms: Mapping[str, Record]) -> Record:
    """What the row opened; of one that opened nothing, what its runtime takes."""
    takes = sorted(ACCEPTS.get(row["runtime"], ()))
    if row["status"] != "ok" and len(takes) == 1:
        return {"form": str(takes[0])}
    return forms.get(row["artifact_digest"], {"form": "checkpoint"})


def _forms(done: Sequence[Outcome]) -> dict[str, Record]:
    """What each artifact is, by its digest."""
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

    Raises SourceError for a checkpoint that has no finished epoch, or that no training wrote.
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
    """Yield a record of the model itself, then of each variant on each runtime."""
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
    """Top-1 accuracy by the name that a training has for it."""
    return {("accuracy" if name == "top1" else name): value for name, value in scores.items()}

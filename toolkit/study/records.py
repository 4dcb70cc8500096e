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
from toolkit.core.documents import read_document
from toolkit.core.measurement import Result
from toolkit.core.specs import TaskKind
from toolkit.data.scores import LOSSES, METRICS
from toolkit.measuring.records import MIB, Record, row_records
from toolkit.results import store as results
from toolkit.study.document import RECORD_KINDS
from toolkit.study.store import ARTIFACT, CHECKPOINT, REPORTS, Outcome, State, Store

VERIFY_SCHEMA = "toolkit.study-verify/1"
S = 1e9


@dataclass(frozen=True, kw_only=True)
class Records:
    """By kind; `results` are those that the rows are from, `outcomes` all cells, in the order of
    work, and `missing` those that are still to do."""

    study: Mapping[str, Any]
    kinds: Mapping[str, Sequence[Record]]
    results: Sequence[Result]
    outcomes: Sequence[Outcome]
    missing: int


def records_of(directory: Path) -> Records:
    """Reads a study. Raises SourceError for none, IntegrityError for a file that was altered."""
    store = Store(directory=directory)
    study = store.read()
    found = [store.outcome(cell["id"]) for cell in study["cells"]]
    outcomes = [one for one in found if one is not None]
    done = [one for one in outcomes if one.state is State.DONE]
    forms = _forms(done)
    kinds: dict[str, list[Record]] = {kind: [] for kind in RECORD_KINDS}
    measured = []
    for outcome in outcomes:
        place = store.place(outcome.id)
        own = {**_plain(outcome.dimensions), "cell": outcome.id, "machine": outcome.machine}
        if outcome.step == "train" and outcome.state is not State.DONE:
            kinds["trainings"].append({**own, "status": outcome.state, "reason": outcome.reason})
        elif outcome.step == "train":
            checkpoint = Checkpoint.load(place / CHECKPOINT)
            trained, epochs = training_records(checkpoint)
            kinds["trainings"].append({**own, **trained})
            kinds["epochs"] += [{**own, **epoch} for epoch in epochs]
        elif outcome.step in ("bench", "bench-training"):
            kind = "rows" if outcome.step == "bench" else "training_rows"
            for path in results.paths(place):
                result = results.load(path)
                measured.append(result)
                for row in row_records(result):
                    named = _form(row, forms) if kind == "rows" else {"trainer": row["runtime"]}
                    kinds[kind].append({**own, **row, **named})
        elif outcome.step == "verify" and outcome.state is State.DONE:
            report = read_document(place / REPORTS["verify"], VERIFY_SCHEMA)["report"]
            kinds["accuracy"] += [{**own, **row} for row in _accuracy(report, forms)]
    return Records(
        study=study,
        kinds=kinds,
        results=measured,
        outcomes=outcomes,
        missing=len(found) - len(outcomes),
    )


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
        own = outcome.dimensions
        if outcome.step == "export":
            passes = own.get("passes") or []
            found[outcome.output[ARTIFACT]] = {"form": " ".join([own["to"], *passes])}
        elif outcome.step == "calibrate":
            method = own.get("method", "minmax")
            mixed = " mixed" if "max_drop" in own else ""
            form = f"onnx int8 ({own['preset']}, {method}{mixed})"
            found[outcome.output[ARTIFACT]] = {"form": form}
    return found


def training_records(checkpoint: Checkpoint) -> tuple[Record, list[Record]]:
    """What a training came to, and each of its epochs."""
    return _training(checkpoint), list(_epochs(checkpoint))


def _training(checkpoint: Checkpoint) -> Record:
    training = checkpoint.training
    history = training["history"]
    kind = _kind(checkpoint)
    metric = METRICS[kind]
    best = max if kind is TaskKind.CLASSIFICATION else min
    seconds = [epoch["train_ns"] / S for epoch in history]
    inference = training.get("inference") or {}
    return {
        "status": "ok",
        "framework": training["framework"],
        "mode": training["mode"],
        "train_rows": training["rows"]["train"],
        "test_rows": training["rows"]["test"],
        "train_s": sum(seconds),
        "epoch_s": sum(seconds) / len(seconds),
        "prepare_s": (training["prepare_ns"] or 0) / S,
        "test_s": history[-1]["test_ns"] / S,
        "images_per_s": sum(epoch["samples_per_s"] for epoch in history) / len(history),
        "peak_mib": max(epoch["peak_bytes"] for epoch in history) / MIB,
        "state_dict_bytes": sum(array.nbytes for array in checkpoint.weights().values()),
        "weights_bytes": checkpoint.files[WEIGHTS].size_bytes,
        f"first_train_{metric}": history[0]["train_metric"],
        f"last_train_{metric}": history[-1]["train_metric"],
        f"best_test_{metric}": best(epoch["test_metric"] for epoch in history),
        f"test_{metric}": history[-1]["test_metric"],
        f"test_{_loss(kind)}": history[-1]["test_loss"],
        "inference_samples_per_s": inference and inference["rows"] * S / inference["ns"],
    }


def _epochs(checkpoint: Checkpoint) -> Iterator[Record]:
    kind = _kind(checkpoint)
    for number, epoch in enumerate(checkpoint.training["history"], 1):
        yield {
            "epoch": number,
            "train_s": epoch["train_ns"] / S,
            "test_s": epoch["test_ns"] / S,
            "train_loss": epoch["train_loss"],
            "test_loss": epoch["test_loss"],
            f"train_{METRICS[kind]}": epoch["train_metric"],
            f"test_{METRICS[kind]}": epoch["test_metric"],
            "learning_rate": epoch["learning_rate"],
            "images_per_s": epoch["samples_per_s"],
            "peak_mib": epoch["peak_bytes"] / MIB,
        }


def _kind(checkpoint: Checkpoint) -> TaskKind:
    assert checkpoint.spec.task is not None
    return checkpoint.spec.task.kind


def _loss(kind: TaskKind) -> str:
    return "loss" if kind is TaskKind.CLASSIFICATION else LOSSES[kind]


def _accuracy(report: Mapping[str, Any], forms: Mapping[str, Record]) -> Iterator[Record]:
    """The model itself, then each form on each runtime."""
    known = {
        form["letter"]: forms.get(form["digest"], {"form": form["format"]})
        for form in report["forms"]
    }
    reference = report["a"]
    yield {
        **known["A"],
        "runtime": reference["runtime"],
        "status": "ok",
        **_scores(reference["scores"]),
        "test_rows": report["samples"],
    }
    for row in report["rows"]:
        drop = row["drop"] or {}
        interval = drop.get("ci95") or (None, None)
        found = {
            **known[row["form"]],
            "runtime": row["runtime"],
            "status": row["status"],
            "reason": row["reason"] or row["departs"],
            **_scores(row["scores"] or {}),
            "test_rows": report["samples"],
            "agreement": row["agreement"],
            "max_abs": row["max_abs"],
            "drop": drop.get("value"),
            "drop_low": interval[0],
            "drop_high": interval[1],
            "gate": row["gate"],
        }
        yield {name: value for name, value in found.items() if value is not None}


def _scores(scores: Mapping[str, float]) -> Record:
    """Top-1 accuracy by the name that a training has for it."""
    return {("accuracy" if name == "top1" else name): value for name, value in scores.items()}

"""Push results to an MLflow tracking server."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from toolkit.core.documents import Json
from toolkit.core.errors import ToolkitError, UnavailableError
from toolkit.core.measurement import Result
from toolkit.core.progress import Progress, Silent
from toolkit.measuring.figures.records import Record, row_records

EXPERIMENT = "toolkit"
TAG = "toolkit.result"
KEPT = (
    "runtime", "artifact", "artifact_digest", "batch", "device", "threads", "tuning", "precision",
)  # fmt: skip
MOST_TEXT = 500  # characters of a parameter, a limit of MLflow
MOST_BATCH = 1000  # metrics per call
FORBIDDEN = re.compile(r"[^\w\-. /:]")


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """A pushed result: `run` is its MLflow run ID, `new` is False if it was there already."""

    result: str
    run: str
    new: bool

    def to_json(self) -> Json:
        return dict(vars(self))


def push(
    found: Sequence[tuple[Path, Result]],
    uri: str,
    *,
    experiment: str = EXPERIMENT,
    progress: Progress | None = None,
) -> list[Pushed]:
    """Create a run in `experiment` for each result that has none there yet.

    `found` has the file of each result, and the result. A run has parameters, tags, every known
    figure of each row as a metric, and the result file as an artifact. Metrics are named
    ROW.RUNTIME.FIGURE. Raises UnavailableError if MLflow is not installed, ToolkitError if the
    server does not answer or rejects a result.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise UnavailableError(
            f"MLflow could not be imported: {error}.",
            hint="Install it: pip install 'inference-toolkit[mlflow]'",
        ) from error
    listener = progress or Silent()
    pushed = []
    try:
        with contextlib.redirect_stdout(sys.stderr):  # MLflow prints about each run
            client = MlflowClient(tracking_uri=uri)
            known = client.get_experiment_by_name(experiment)
            id = known.experiment_id if known else client.create_experiment(experiment)
            for done, (path, result) in enumerate(found, 1):
                pushed.append(_push(client, id, path, result))
                listener.update("push", done, len(found), result.id)
    except MlflowException as error:
        raise ToolkitError(
            f"MLflow at {uri} did not take the results: {str(error).splitlines()[0]}",
            hint="Check that the server runs there, and that its version is MLflow's here.",
        ) from error
    return pushed


def _push(client: Any, experiment: str, path: Path, result: Result) -> Pushed:
    there = client.search_runs([experiment], f"tags.`{TAG}` = '{result.id}'", max_results=1)
    if there:
        return Pushed(result=result.id, run=there[0].info.run_id, new=False)
    created = int(datetime.fromisoformat(result.created).timestamp() * 1000)
    run = client.create_run(experiment, start_time=created, run_name=result.id).info.run_id
    try:
        _fill(client, run, result, created)
        client.log_artifact(run, str(path))
        client.set_tag(run, TAG, result.id)  # last, so that only complete runs have it
    except BaseException:
        client.delete_run(run)
        raise
    client.set_terminated(run, "FINISHED")
    return Pushed(result=result.id, run=run, new=True)


def _fill(client: Any, run: str, result: Result, created: int) -> None:
    from mlflow.entities import Metric, Param, RunTag

    records = row_records(result)
    params = [
        Param(f"{number}.{name}", str(record[name])[:MOST_TEXT])
        for number, record in enumerate(records)
        for name in KEPT
        if record.get(name) not in (None, "")
    ]
    metrics = [
        Metric(name, value, created, 0)
        for number, record in enumerate(records)
        for name, value in _metrics(number, record)
    ]
    tags = [
        RunTag("toolkit.cpu", str(result.environment["cpu"]["model"])),
        RunTag("toolkit.commit", str(result.environment["commit"])),
        *(RunTag(f"toolkit.warning.{n}", text) for n, text in enumerate(result.warnings)),
    ]
    for start in range(0, max(len(metrics), 1), MOST_BATCH):
        client.log_batch(run, metrics=metrics[start : start + MOST_BATCH])
    for start in range(0, len(params), 100):
        client.log_batch(run, params=params[start : start + 100])
    client.log_batch(run, tags=tags[:100])


def _metrics(number: int, record: Record) -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if isinstance(value, int | float) and name not in (*KEPT, "group"):
            told = FORBIDDEN.sub("_", f"{number}.{record['runtime']}.{name}")
            yield told, float(value)

"""toolkit results push: to a real MLflow server on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.conftest import Run
from tests.mlflow_server import mlflow_server
from toolkit.core.measurement import Scope
from toolkit.measuring.figures.summary import median_of
from toolkit.results import store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow") / "server") as url:
        yield url


def test_a_result_becomes_a_run_once(
    server: str, artifact_dir: Path, toolkit_cli: Run, tmp_path: Path
) -> None:
    args = ("bench", artifact_dir, "--runtime", "torch,onnxruntime", "--runs", 20, "--warmup", 2)
    assert toolkit_cli(*args).returncode == 0
    (path,) = store.paths(tmp_path / "results")
    done = toolkit_cli("results", "push", "all", "--mlflow", server, "--json")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["new"]
    client, result = MlflowClient(tracking_uri=server), store.load(path)
    found = client.get_run(run["run"])
    assert found.data.tags["toolkit.result"] == result.id
    median = median_of(result.rows[1], Scope.FORWARD)
    assert median is not None
    assert found.data.metrics["1.onnxruntime.forward_ms"] == pytest.approx(median / 1e6)
    assert found.data.params["1.runtime"] == "onnxruntime"
    kept = client.download_artifacts(run["run"], path.name, str(tmp_path))
    assert Path(kept).read_bytes() == path.read_bytes()
    again = toolkit_cli("results", "push", result.id[:15], "--mlflow", server, "--json")
    assert json.loads(again.stdout)["runs"] == [{**run, "new": False}]


def test_a_server_that_is_not_there_is_told(
    artifact_dir: Path, toolkit_cli: Run, tmp_path: Path
) -> None:
    assert toolkit_cli("bench", artifact_dir, "--runs", 5, "--runtime", "torch").returncode == 0
    done = toolkit_cli(
        "results", "push", "all", "--mlflow", "http://127.0.0.1:9",
        env={"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
    )  # fmt: skip
    assert done.returncode == 3
    assert "did not take the results" in done.stderr
    assert "Traceback" not in done.stderr

"""Options of a runtime's own, and pinning: honoured, recorded, and refused where unknown."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from tests.conftest import Run
from toolkit.measuring.workers.client import WorkerProcess

QUICK = ("--scope", "forward", "--warmup", 1, "--runs", 12)


def test_options_are_honoured_and_recorded(toolkit_cli: Run, artifact_dir: Path) -> None:
    done = toolkit_cli(
        "bench", artifact_dir, "--runtime", "onnxruntime,openvino", *QUICK, "--json",
        "--option", "onnxruntime.graph_optimization_level=basic",
        "--option", "onnxruntime.session.intra_op.allow_spinning=0",
        "--option", "openvino.INFERENCE_NUM_THREADS=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ort, openvino = json.loads(done.stdout)["rows"]
    assert ort["provenance"]["details"]["graph_optimization_level"] == "ORT_ENABLE_BASIC"
    assert ort["tuning"]["session.intra_op.allow_spinning"] == "0"
    assert openvino["provenance"]["threads"] == 1
    assert openvino["tuning"] == {"INFERENCE_NUM_THREADS": "1"}


def test_a_lower_precision_by_option_is_not_float32(toolkit_cli: Run, artifact_dir: Path) -> None:
    """Where the processor has bfloat16, OpenVINO takes the hint, and the row says so."""
    done = toolkit_cli(
        "bench", artifact_dir, "--runtime", "openvino", *QUICK, "--json",
        "--option", "openvino.INFERENCE_PRECISION_HINT=bf16",
    )  # fmt: skip
    (row,) = json.loads(done.stdout)["rows"]
    ran = row["precision"]["ran"]
    assert (row["status"] == "ok") == (ran == "float32")
    assert ran == "float32" or "Asked for float32, ran in" in row["reason"]


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("onnxruntime.graph_optimisation_level=basic", "Did you mean 'graph_optimization_level'?"),
        ("onnxruntime.graph_optimization_level=basics", "Did you mean 'basic'?"),
        ("onnxruntime.intra_op_num_threads=x", "expected a value of type int"),
        ("openvino.NUM_STREAM=1", "Did you mean 'NUM_STREAMS'?"),
        ("torch.threads=1", "Known: dtype."),
    ],
)
def test_an_unknown_option_costs_its_row(
    toolkit_cli: Run, artifact_dir: Path, option: str, says: str
) -> None:
    runtime = option.partition(".")[0]
    done = toolkit_cli(
        "bench", artifact_dir, "--runtime", runtime, *QUICK, "--json", "--option", option
    )
    assert done.returncode == 3, done.stderr
    assert says in json.loads(done.stdout)["rows"][0]["reason"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--option", "foo"), "runtime.name=value"),
        (("--option", "onnxruntim.x=1"), "Did you mean 'onnxruntime'?"),
        (("--cpus", "9999"), "Got --cpus 9999"),
        (("--cpus", "a"), "expected whole numbers"),
    ],
)
def test_wrong_tuning(
    toolkit_cli: Run, artifact_dir: Path, args: tuple[str, ...], says: str
) -> None:
    done = toolkit_cli("bench", artifact_dir, "--runtime", "onnxruntime", *QUICK, *args)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pinned_worker_runs_on_its_cores_only() -> None:
    before = psutil.Process().cpu_affinity()
    core = before[-1]
    with WorkerProcess(threads=1, timeout_s=30, cpus=frozenset({core})) as worker:
        assert psutil.Process(worker.pid).cpu_affinity() == [core]
        worker.probe("null")
    assert psutil.Process().cpu_affinity() == before

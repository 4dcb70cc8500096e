"""Signals, closed ends, odd places: nothing is lost, nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.cli.test_failures import benchmarking
from tests.conftest import TOOLKIT, Run

QUICK = ("--scope", "forward", "--warmup", 1, "--runs", 12)


def vanished(pids: list[int]) -> bool:
    """Whether the processes are gone, after at most ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_a_signal_stores_what_was_measured(
    artifact_dir: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with benchmarking(artifact_dir, tmp_path, "onnxruntime,openvino") as (process, workers):
        pids = [worker.pid for worker in workers]
        process.send_signal(number)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)  # the impatient second Ctrl-C
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    (stored,) = (tmp_path / "results").glob("*.json")
    assert len(json.loads(stored.read_text())["rows"]) == 2
    assert vanished(pids)


TRAINED = """
[[train]]
model = "mlp"
data = "diabetes"
epochs = 3

[[export]]
to = "onnx"
"""


@pytest.mark.parametrize(
    ("command", "begun", "made"),
    [
        (("train", "mlp", "--data", "diabetes", "--epochs", 3), "train mlp 1/", "manifest.json"),
        (("study", "run", "s.toml"), "this cell 1/", "report.html"),
    ],
)
def test_a_hangup_ignored_by_the_caller_stays_ignored(
    tmp_path: Path, command: tuple[object, ...], begun: str, made: str
) -> None:
    """The closed terminal of a command that `nohup` started: each of its processes gets SIGHUP."""
    (tmp_path / "s.toml").write_text(TRAINED)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    started = subprocess.Popen(
        [TOOLKIT, *map(str, command), "--out", "out"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGHUP, before)
    with started as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith(begun))
        for child in psutil.Process(process.pid).children(recursive=True):
            child.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert (tmp_path / "out" / made).is_file()
    if command[0] == "study":
        cells = list((tmp_path / "out" / "cells").glob("*/cell.json"))
        assert [json.loads(cell.read_text())["state"] for cell in cells] == ["done"] * 2


def test_workers_end_with_a_killed_parent(artifact_dir: Path, tmp_path: Path) -> None:
    with benchmarking(artifact_dir, tmp_path, "onnxruntime,openvino") as (process, workers):
        pids = [worker.pid for worker in workers]
        process.kill()
        process.communicate(timeout=60)
    assert vanished(pids)


def test_a_terminated_export_leaves_nothing(checkpoint_dir: Path, tmp_path: Path) -> None:
    command = [TOOLKIT, "export", checkpoint_dir, "--to", "onnx", "--out", "out"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("export 2/"))
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 143
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("models",), ("models", "--json"), ("--help",)])
def test_a_full_disk_is_said(command: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [TOOLKIT, *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 3
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_without_the_letters(toolkit_cli: Run, artifact_dir: Path) -> None:
    env = {"PYTHONIOENCODING": "ascii"}
    done = toolkit_cli("bench", artifact_dir, "--runtime", "onnxruntime", *QUICK, env=env)
    assert done.returncode == 0, done.stderr
    assert "onnxruntime" in done.stdout


def test_results_hold_no_secret(toolkit_cli: Run, artifact_dir: Path, tmp_path: Path) -> None:
    env = {
        "NVIDIA_API_KEY": "hush-1",
        "TF_TOKEN_app": "hush-2",
        "TORCH_HUB_TOKEN": "hush-3",
        "MKL_SECRET": "hush-4",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    done = toolkit_cli("bench", artifact_dir, "--runtime", "null", *QUICK, "--json", env=env)
    assert json.loads(done.stdout)["environment"]["variables"]["OMP_WAIT_POLICY"] == "PASSIVE"
    stored = next((tmp_path / "results").glob("*.json")).read_text()
    assert "hush" not in done.stdout + stored


def test_a_linked_model_is_found_with_its_data(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    shutil.copy(artifact_dir / "model.onnx", tmp_path / "blobs" / "abc123")
    (tmp_path / "snapshot" / "model.onnx").symlink_to("../blobs/abc123")
    done = toolkit_cli("bench", "snapshot/model.onnx", "--runtime", "onnxruntime", *QUICK)
    assert done.returncode == 0, done.stderr


def matmul(place: Path, kind: int, dtype: type) -> Path:
    constant = numpy_helper.from_array(np.eye(4, dtype=dtype), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", 4])],
        [helper.make_tensor_value_info("y", kind, ["n", 4])],
        [constant],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=opsets), place / "m.onnx")
    return place / "m.onnx"


@pytest.mark.parametrize(
    ("kind", "dtype", "name"),
    [(TensorProto.DOUBLE, np.float64, "float64"), (TensorProto.FLOAT16, np.float16, "float16")],
)
def test_another_precision_is_not_called_float32(
    toolkit_cli: Run, tmp_path: Path, kind: int, dtype: type, name: str
) -> None:
    model = matmul(tmp_path, kind, dtype)
    done = toolkit_cli("bench", model, "--runtime", "onnxruntime,openvino", *QUICK, "--json")
    for row in json.loads(done.stdout)["rows"]:
        ran = row["precision"]["ran"]
        assert row["precision"]["requested"] == name
        assert ran in {node["dtype"] for node in row["provenance"]["details"]["nodes"]}
        assert (row["status"] == "ok") is (ran == name)
        assert ran == name or f"Asked for {name}, ran in {ran}" in row["reason"]


def test_external_weights_are_part_of_the_digest(tmp_path: Path) -> None:
    from toolkit.sources.resolve import open_artifact

    digests = set()
    for seed in (0, 1):
        model = onnx.load(matmul(tmp_path, TensorProto.FLOAT, np.float32))
        weights = np.random.default_rng(seed).standard_normal((4, 4)).astype(np.float32)
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
        place = tmp_path / str(seed)
        place.mkdir()
        onnx.save(
            model, place / "m.onnx", save_as_external_data=True, location="w", size_threshold=0
        )
        digests.add(open_artifact(place / "m.onnx").digest)
    assert len(digests) == 2


def test_a_damaged_parent_is_named_not_replaced(
    toolkit_cli: Run, main_path: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(main_path, copy)
    weights = copy / "lenet" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    done = toolkit_cli(
        "verify", copy / "lenet-onnx", "--runtime", "onnxruntime", "--data", "digits"
    )
    assert done.returncode == 3
    assert "weights.safetensors has digest" in done.stderr


def test_an_absent_parent_is_said(toolkit_cli: Run, artifact_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(artifact_dir, tmp_path / "alone")
    done = toolkit_cli("bench", "alone", "--runtime", "onnxruntime", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "is not at" in done.stdout
    done = toolkit_cli("verify", "alone", "--runtime", "onnxruntime", "--data", "digits")
    assert done.returncode == 0, done.stderr
    assert "is not at" in done.stderr


def test_verify_wants_logits(toolkit_cli: Run, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 32, 32])],
    )
    onnx.save(helper.make_model(graph, ir_version=9), tmp_path / "relu.onnx")
    done = toolkit_cli("verify", "relu.onnx", "--data", "digits", "--runtime", "onnxruntime")
    assert done.returncode == 2
    assert "expected logits" in done.stderr


def test_a_place_that_cannot_be_written_costs_no_work(toolkit_cli: Run, artifact_dir: Path) -> None:
    train = toolkit_cli("train", "lenet", "--data", "digits", "--out", "/proc/nowhere")
    assert train.returncode == 3
    assert "train lenet 1/" not in train.stderr
    bench = toolkit_cli("bench", artifact_dir, "--runtime", "null", "--out", "/proc")
    assert bench.returncode == 2
    assert "cannot be stored" in bench.stderr


def test_the_current_directory_can_be_the_place(tmp_path: Path) -> None:
    place = tmp_path / "here"
    place.mkdir()
    done = subprocess.run(
        [TOOLKIT, "train", "lenet", "--data", "digits", "--epochs", "1", "--out", str(place)],
        cwd=place, capture_output=True, text=True, check=False, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (place / "manifest.json").is_file()

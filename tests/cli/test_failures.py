"""What breaks costs one row or one file, is named, and loses nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import psutil
import pytest
from onnx import numpy_helper

from tests.conftest import TOOLKIT, Run, workers_of

BENCH = ("--scope", "forward", "--warmup", "1", "--runs", "12", "--json")


@contextmanager
def benchmarking(
    artifact: Path, cwd: Path, runtimes: str
) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A bench in mid-run, its workers all open, in the order of `runtimes`."""
    command = [TOOLKIT, "bench", artifact, "--runtime", runtimes, "--json", "--max-seconds", "4"]
    with subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        count = len(runtimes.split(","))
        for line in process.stderr:
            if line.startswith(f"open, batch 1 {count}/{count}"):
                break
        yield process, workers_of(process, count)


def test_a_worker_killed_in_mid_run_costs_its_row(artifact_dir: Path, tmp_path: Path) -> None:
    with benchmarking(artifact_dir, tmp_path, "onnxruntime,openvino") as (process, workers):
        workers[0].send_signal(signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    killed, other = json.loads(stdout)["rows"]
    assert killed["status"] == "failed"
    assert "SIGKILL" in killed["reason"]
    assert killed["ratio"] is None
    assert other["status"] == "ok"
    assert other["scopes"]["end_to_end"]["samples"] > 100
    assert len(list((tmp_path / "results").glob("*.json"))) == 1


def test_ctrl_c_stores_what_was_measured(artifact_dir: Path, tmp_path: Path) -> None:
    with benchmarking(artifact_dir, tmp_path, "onnxruntime,openvino") as (process, workers):
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    stored = json.loads(next((tmp_path / "results").glob("*.json")).read_text())
    assert [row["runtime"] for row in stored["rows"]] == ["onnxruntime", "openvino"]
    assert "Interrupted" in stored["warnings"][0]
    assert not any(worker.is_running() for worker in workers)


def test_ctrl_c_keeps_the_finished_epochs(tmp_path: Path) -> None:
    command = [TOOLKIT, "train", "lenet", "--data", "digits", "--epochs", "500", "--out", "cut"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("train lenet 2/"))
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "interrupted" in stdout
    manifest = json.loads((tmp_path / "cut" / "manifest.json").read_text())
    assert manifest["training"]["interrupted"] is True
    assert 2 <= manifest["epoch"] == len(manifest["training"]["history"]) < 500


@pytest.fixture
def copied(main_path: Path, tmp_path: Path) -> Path:
    """A copy of checkpoint and artifact that a test may damage."""
    shutil.copytree(main_path, tmp_path / "copy")
    return tmp_path / "copy"


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("command", "damaged"),
    [
        (("bench", "lenet-onnx", *BENCH), "lenet-onnx/model.onnx"),
        (("verify", "lenet-onnx", "--data", "digits"), "lenet-onnx/model.onnx"),
        (("verify", "lenet-onnx", "--data", "digits"), "lenet-onnx/manifest.json"),
        (("export", "lenet", "--to", "onnx", "--out", "new"), "lenet/weights.safetensors"),
    ],
)
def test_a_flipped_bit_is_found_and_named(
    toolkit_cli: Run, copied: Path, command: tuple[str, ...], damaged: str
) -> None:
    flip_a_bit(copied / damaged)
    before = sorted(copied.rglob("*"))
    name, source, *rest = command
    done = toolkit_cli(name, copied / source, *rest)
    assert done.returncode in (2, 3), done.stderr
    assert Path(damaged).name in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(copied.rglob("*")) == before


def test_a_missing_checkpoint_costs_the_torch_row(toolkit_cli: Run, copied: Path) -> None:
    shutil.rmtree(copied / "lenet")
    done = toolkit_cli("bench", copied / "lenet-onnx", "--runtime", "torch,onnxruntime", *BENCH)
    assert done.returncode == 0, done.stderr
    torch, ort = json.loads(done.stdout)["rows"]
    assert torch["status"] == "failed"
    assert "parent checkpoint" in torch["reason"]
    assert ort["status"] == "ok"
    assert ort["parity"]["passed"]


def reseal(directory: Path) -> None:
    """Makes the manifest fit altered files, as an attacker would who swaps the model."""
    from toolkit.core.artifact import Artifact

    artifact = Artifact.load(directory)
    Artifact.save(
        directory,
        model=artifact.model,
        format=artifact.format,
        precision=artifact.precision,
        signature=artifact.signature,
        entry=artifact.entry,
        parents=artifact.parents,
        options=artifact.options,
    )


@pytest.fixture
def altered(copied: Path) -> Path:
    """An artifact whose manifest is in order and whose last bias is not the model's."""
    artifact = copied / "lenet-onnx"
    model = onnx.load(artifact / "model.onnx")
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "fc3.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 0.01, "fc3.bias"))
    onnx.save(model, artifact / "model.onnx")
    reseal(artifact)
    return artifact


def test_verify_fails_a_model_that_is_another(toolkit_cli: Run, altered: Path) -> None:
    done = toolkit_cli("verify", altered, "--runtime", "torch,onnxruntime", "--data", "digits")
    assert done.returncode == 1, done.stderr
    assert "FAILED" in done.stdout
    assert "logits differs by" in done.stdout


def test_a_wrong_model_never_wins(toolkit_cli: Run, altered: Path) -> None:
    done = toolkit_cli("bench", altered, "--runtime", "torch,onnxruntime", *BENCH)
    assert done.returncode == 0, done.stderr
    torch, wrong = json.loads(done.stdout)["rows"]
    assert torch["status"] == "ok"
    assert wrong["status"] == "failed"
    assert "Parity with torch: logits is off by" in wrong["reason"]
    assert wrong["parity"]["passed"] is False
    assert wrong["ratio"] is None
    assert wrong["scopes"]["forward"]["median_ns"] > 0


def shadow(place: Path, package: str, source: str) -> dict[str, str]:
    """An environment in which `package` is a fake that runs `source` when imported."""
    fake = place / "fake-packages" / package
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text(source)
    return {"PYTHONPATH": str(fake.parent)}


@pytest.mark.parametrize(
    ("source", "status", "says"),
    [
        ("raise ImportError('libopenvino.so: not found')", "unavailable", "pip install"),
        ("raise RuntimeError('no such instruction')", "unavailable", "no such instruction"),
        ("import os; os.abort()", "failed", "SIGABRT"),
        ("print('chatter on standard output'); raise ImportError('x')", "unavailable", "x"),
    ],
)
def test_a_runtime_that_cannot_be_imported_costs_its_row(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path, source: str, status: str, says: str
) -> None:
    env = shadow(tmp_path, "openvino", source)
    done = toolkit_cli("bench", artifact_dir, "--runtime", "onnxruntime,openvino", *BENCH, env=env)
    assert done.returncode == 0, done.stderr
    ort, openvino = json.loads(done.stdout)["rows"]
    assert ort["status"] == "ok"
    assert openvino["status"] == status
    assert says in openvino["reason"]
    assert openvino["scopes"] == {}


def test_a_runtime_that_hangs_is_stopped(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path
) -> None:
    env = shadow(tmp_path, "openvino", "import time; time.sleep(1000)")
    done = toolkit_cli(
        "bench", artifact_dir, "--runtime", "openvino,onnxruntime", *BENCH, "--timeout", 8, env=env
    )
    assert done.returncode == 0, done.stderr
    openvino, ort = json.loads(done.stdout)["rows"]
    assert openvino["status"] == "failed"
    assert "no answer to 'open' in 8 s" in openvino["reason"]
    assert ort["status"] == "ok"
    assert ort["ratio"] is None  # its baseline has no time


def test_no_row_is_exit_code_3(toolkit_cli: Run, artifact_dir: Path, tmp_path: Path) -> None:
    env = shadow(tmp_path, "openvino", "raise ImportError('gone')")
    done = toolkit_cli("bench", artifact_dir, "--runtime", "openvino", *BENCH, env=env)
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["rows"][0]["status"] == "unavailable"


def test_verify_says_what_it_could_not_verify(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path
) -> None:
    env = shadow(tmp_path, "openvino", "raise ImportError('gone')")
    done = toolkit_cli("verify", artifact_dir, "--runtime", "openvino", "--data", "digits", env=env)
    assert done.returncode == 3, done.stderr
    assert "unavailable" in done.stdout


def test_doctor_says_what_to_install(toolkit_cli: Run, tmp_path: Path) -> None:
    env = shadow(tmp_path, "openvino", "raise ImportError('libopenvino.so: not found')")
    done = toolkit_cli("doctor", "--json", env=env)
    assert done.returncode == 0, done.stderr
    found = {row["name"]: row for row in json.loads(done.stdout)["runtimes"]}
    assert found["openvino"]["status"] == "unavailable"
    assert "libopenvino.so" in found["openvino"]["reason"]
    assert found["openvino"]["hint"].endswith("pip install 'inference-toolkit[cpu]'")
    assert found["onnxruntime"]["status"] == "ok"


def test_export_of_a_wrong_weight_leaves_nothing(checkpoint_dir: Path, tmp_path: Path) -> None:
    """A plugin for the target `altering`, which loses a bit of a weight, installed for real."""
    site = tmp_path / "site"
    info = site / "altering-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: altering\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[toolkit.exporters]\naltering = altering:Altering\n")
    (site / "altering.py").write_text(ALTERING_EXPORTER)
    done = subprocess.run(
        [TOOLKIT, "export", checkpoint_dir, "--to", "altering", "--out", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "9 of 10 weights" in done.stderr
    assert "fc1.weight [120, 400] is altered" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


ALTERING_EXPORTER = """
import onnx
from onnx import numpy_helper
from exporters.base import Exporter
from exporters.onnx.from_torch import OnnxFromTorch

class Altering(Exporter):
    route = OnnxFromTorch.route

    def export(self, source, directory, options):
        done = OnnxFromTorch().export(source, directory, options)
        model = onnx.load(directory / done.entry)
        weight = next(t for t in model.graph.initializer if t.name == "fc1.weight")
        array = numpy_helper.to_array(weight).copy()
        array.view("uint32")[7, 7] ^= 1
        weight.CopyFrom(numpy_helper.from_array(array, "fc1.weight"))
        onnx.save(model, directory / done.entry)
        return done
"""


def test_the_command_line_survives_a_closed_pipe(artifact_dir: Path) -> None:
    done = subprocess.run(
        f"{TOOLKIT} models --json | true", shell=True, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr

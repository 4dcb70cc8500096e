"""toolkit deploy: a repository that Triton's own protobuf reads, and a folder that runs alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

import toolkit
from models import FAMILIES
from tests.conftest import Run, run_toolkit
from toolkit.core.artifact import Artifact
from toolkit.core.files import digest_file


def config_of(place: Path) -> ModelConfig:
    found = ModelConfig()
    text_format.Parse((place / "config.pbtxt").read_text(), found)
    return found


@pytest.fixture(scope="module")
def bundle(main_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a short search."""
    place = tmp_path_factory.mktemp("bundle")
    done = run_toolkit(
        "optimize", main_path / "lenet", "--exact", "--budget", "1s", "--batch", 8,
        "--out", "search", cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place / "search" / "bundle"


@pytest.mark.parametrize("family", FAMILIES.names())
def test_triton_reads_what_is_written_of_every_family(family: str, tmp_path: Path) -> None:
    made = toolkit.export(family, to="onnx", out=tmp_path / "onnx").artifact
    done = run_toolkit(
        "deploy", tmp_path / "onnx", "--to", "triton", "--out", "repository", "--max-batch", 16,
        "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["artifact_digest"] == made.digest
    place = tmp_path / "repository" / family
    config = config_of(place)
    (spec,) = made.signature.inputs
    assert (config.name, config.backend, config.max_batch_size) == (family, "onnxruntime", 16)
    assert [one.name for one in config.input] == [spec.name]
    assert list(config.input[0].dims) == list(spec.shape[1:])
    assert config.input[0].data_type == 11  # TYPE_FP32
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    assert digest_file(place / "1" / "model.onnx") == made.files[made.entry].digest


def test_a_bundle_is_served_as_it_was_measured(
    bundle: Path, toolkit_cli: Run, tmp_path: Path
) -> None:
    done = toolkit_cli("deploy", bundle, "--to", "triton", "--name", "digits", "--out", "r")
    assert done.returncode == 0, done.stderr
    told = json.loads((bundle / "bundle.json").read_text())
    if told["runtime"] not in ("onnxruntime", "openvino"):
        pytest.skip(f"{told['runtime']} was chosen")
    place = tmp_path / "r" / "digits"
    config = config_of(place)
    assert config.backend == told["runtime"]
    threads = {"onnxruntime": "intra_op_thread_count", "openvino": "INFERENCE_NUM_THREADS"}
    found = config.parameters[threads[told["runtime"]]].string_value
    assert found == str(told["options"]["threads"])
    artifact = Artifact.load(bundle / "model")
    entry = {"onnxruntime": "model.onnx", "openvino": "model.onnx"}[told["runtime"]]
    assert digest_file(place / "1" / entry) == artifact.files[artifact.entry].digest
    assert config.model_warmup[0].count > 0


def test_openvino_keeps_both_of_its_files(main_path: Path, tmp_path: Path) -> None:
    made = toolkit.export(main_path / "lenet", to="openvino", out=tmp_path / "ir").artifact
    toolkit.deploy(tmp_path / "ir", to="triton", out=tmp_path / "r", name="net")
    place = tmp_path / "r" / "net"
    assert config_of(place).backend == "openvino"
    kept = {digest_file(path) for path in (place / "1").iterdir()}
    assert {made.files[name].digest for name in ("model.xml", "model.bin")} == kept


def test_a_folder_checks_itself_where_the_toolkit_is_not(
    bundle: Path, toolkit_cli: Run, tmp_path: Path
) -> None:
    done = toolkit_cli("deploy", bundle, "--to", "folder", "--out", "served")
    assert done.returncode == 0, done.stderr
    command = [sys.executable, tmp_path / "served" / "check.py"]
    checked = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.splitlines()[-1] == "ok"
    assert "toolkit" not in (tmp_path / "served" / "run.py").read_text().split('"""')[2]
    expected = tmp_path / "served" / "check-outputs.npz"
    wrong = {name: array + 1 for name, array in np.load(expected).items()}
    np.savez(expected, **wrong)
    failed = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "is not what it was" in failed.stderr


@pytest.mark.parametrize(
    ("source", "args", "told"),
    [
        ("lenet", ("--to", "triton"), "is a checkpoint, which no server runs"),
        ("lenet-onnx", ("--to", "folder"), "no program to run it"),
        ("lenet-onnx", ("--to", "bento"), "no target of a deployment named 'bento'"),
        ("lenet-onnx", ("--to", "triton", "--name", "../x"), "Got the model name"),
        ("lenet-onnx", ("--to", "triton", "--max-batch", "0"), "expected 1 or more"),
        ("none", ("--to", "triton"), "none"),
    ],
)
def test_wrong_use_is_told(
    main_path: Path, toolkit_cli: Run, tmp_path: Path, source: str, args: tuple[Any, ...], told: str
) -> None:
    done = toolkit_cli("deploy", main_path / source, *args, "--out", "r")
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert not (tmp_path / "r").exists()

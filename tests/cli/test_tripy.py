"""Exporting to NVIDIA Tripy as a user does: the real package on a double of its compiled half. What
was written is read where there is neither."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from exporters.tripy_file import TripyTensors
from tests.conftest import Run, run_toolkit
from tests.fake_cuda import fake_cuda
from tests.tripy_env import tripy_env
from toolkit.core.errors import SourceError

FILES = ("executable.json", "weights.safetensors", "tripy.json")


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tripy")
    done = run_toolkit(
        "export", "lenet", "--to", "tripy", "--out", "lenet", cwd=place, env=tripy_env()
    )
    assert done.returncode == 0, done.stderr
    (place / "told.txt").write_text(done.stdout)
    return place / "lenet"


def test_every_weight_is_there_bit_for_bit_and_nothing_is_said_to_have_run(lenet: Path) -> None:
    told = " ".join((lenet.parent / "told.txt").read_text().split())
    assert "10 of 10 weights are explained: 10 identical." in told
    assert "the artifact itself has not run" in told
    manifest = json.loads((lenet / "manifest.json").read_text())
    assert (manifest["format"], manifest["precision"]) == ("tripy", "float32")
    assert manifest["entry"] == "executable.json"
    assert set(manifest["files"]) >= {*FILES, "parity.json"}
    outputs = json.loads((lenet / "parity.json").read_text())["outputs"]
    assert outputs["runtime"] == "torch"
    assert outputs["not_run"].startswith("the tripy form itself has not run, as tripy cannot run")


def test_it_is_read_without_tripy(lenet: Path, toolkit_cli: Run) -> None:
    done = toolkit_cli("parity", "weights", lenet / "source", lenet, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"] == {"identical": 10}
    done = toolkit_cli("inspect", lenet, "--json")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", FILES)
def test_files_that_were_not_written_together_are_refused(
    lenet: Path, tmp_path: Path, name: str
) -> None:
    """Whatever a manifest says of them."""
    place = tmp_path / "copy"
    shutil.copytree(lenet, place)
    reader, entry = TripyTensors(), place / "executable.json"
    assert len(reader.stored_tensors(entry)) == 10
    content = bytearray((place / name).read_bytes())
    content[len(content) // 2] ^= 1
    (place / name).write_bytes(content)
    with pytest.raises(SourceError, match=name):
        reader.stored_tensors(entry)
    (place / name).unlink()
    with pytest.raises(SourceError):
        reader.stored_tensors(entry)


def test_an_altered_artifact_is_refused(lenet: Path, toolkit_cli: Run, tmp_path: Path) -> None:
    shutil.copytree(lenet, tmp_path / "copy")
    with (tmp_path / "copy" / "executable.json").open("a") as file:
        file.write(" ")
    done = toolkit_cli("parity", "weights", lenet / "source", "copy")
    assert done.returncode == 3
    assert "executable.json" in done.stderr


def test_it_is_not_measured_without_a_gpu(lenet: Path, toolkit_cli: Run) -> None:
    done = toolkit_cli("bench", lenet, "--runtime", "tripy", "--warmup", 1, "--runs", 11)
    assert done.returncode != 0
    assert "tripy" in done.stderr


def test_a_model_of_one_s_own_is_refused(toolkit_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "lenet.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Sequential(torch.nn.Linear(4, 2))\n"
    )
    args = ("export", "lenet.py:net", "--input", "input=2x4", "--to", "tripy", "--out", "out")
    done = toolkit_cli(*args)
    assert done.returncode == 2
    assert "a user model in torch" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("capability", "precision"), [(75, "float32"), (90, "tf32")])
def test_where_there_is_a_gpu_the_executable_itself_is_compared(
    toolkit_cli: Run, capability: int, precision: str
) -> None:
    """The driver is a fake, and torch on the CPU computes what the executable would."""
    env = {**fake_cuda(capability=capability), "PYTHONPATH": tripy_env()["PYTHONPATH"]}
    done = toolkit_cli("export", "lenet", "--to", "tripy", "--out", "out", "--json", env=env)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["weights"]["counts"] == {"identical": 10}
    outputs = document["outputs"]
    assert (outputs["runtime"], outputs["not_run"]) == ("tripy", None)
    assert outputs["precision"] == precision
    assert {case["batch"] for case in outputs["cases"]} == {1, 8, 64}
    assert ("multiplied float32 as TF32" in done.stderr) is (precision == "tf32")

"""toolkit bench-training, through the real command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import TOOLKIT, Run, run_toolkit
from tests.mxnet_env import mxnet_python

FEW = ("--rows", 200, "--warmup", 1, "--epochs", 2, "--threads", 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one stored result, and what was printed of it in `out.json`."""
    directory = tmp_path_factory.mktemp("trained")
    done = run_toolkit(
        "bench-training", "mlp", "--data", "diabetes", "--batch-size", "50,100", "--json",
        "--trainer", "torch:eager,torch:nosuch,mxnet:hybrid,cntk:eager", *FEW,
        "--python", "mxnet=/nowhere/python", cwd=directory,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (directory / "out.json").write_text(done.stdout)
    return directory


def test_rows_are_measured_in_groups_by_batch_size(place: Path) -> None:
    figures = json.loads((place / "out.json").read_text())
    rows = [row for row in figures["rows"] if row["runtime"] == "torch:eager"]
    assert [(row["group"], row["batch"], row["status"]) for row in rows] == [
        (0, 50, "ok"),
        (1, 100, "ok"),
    ]
    for row in rows:
        assert row["scopes"]["epoch"]["samples"] == 2
        assert row["scopes"]["epoch"]["warmup"] == 1
        assert row["scopes"]["open"]["first_run_ns"] > 0
        assert row["memory"]["peak_rss_bytes"] > 2**20
        assert row["parity"]["passed"] is True
        assert len(row["learning"]["first_steps"]) == 200 // row["batch"]
        assert row["provenance"]["runtime"] == "torch:eager"
    assert rows[0]["learning"]["rows"] == 200


def test_what_cannot_be_measured_is_a_row_with_its_reason(place: Path) -> None:
    rows = json.loads((place / "out.json").read_text())["rows"]
    found = {row["runtime"]: (row["status"], row["reason"]) for row in rows if row["batch"] == 50}
    assert found["torch:nosuch"][0] == "failed"
    assert "nosuch" in found["torch:nosuch"][1]
    assert found["mxnet:hybrid"][0] == "unavailable"
    assert "--python mxnet=PATH" in found["mxnet:hybrid"][1]
    assert found["cntk:eager"][0] == "failed"
    assert "cntk" in found["cntk:eager"][1]


@pytest.mark.real_start
def test_a_device_that_is_not_there_is_the_reason_of_each_row(toolkit_cli: Run) -> None:
    done = toolkit_cli(
        "bench-training", "mlp", "--data", "diabetes", "--device", "cuda", *FEW, "--json",
        "--trainer", "torch:eager,jax:jit,tensorflow:epoch",
        env={"CUDA_VISIBLE_DEVICES": "-1"},
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    figures = json.loads(done.stdout)
    assert figures["plan"]["options"]["device"] == "cuda"
    assert [row["status"] for row in figures["rows"]] == ["unavailable"] * 3
    assert all("GPU" in row["reason"] or "cuda" in row["reason"] for row in figures["rows"])
    assert figures["warnings"] == []


def test_a_stored_result_is_shown_and_listed(place: Path) -> None:
    done = run_toolkit("results", "show", "2", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "one epoch, batch 50" in done.stdout
    assert "samples/s by batch size" in done.stdout
    assert "before training" in done.stdout
    assert "200 training rows of diabetes" in done.stdout
    assert "mlp" in run_toolkit("results", "list", cwd=place).stdout


def test_mxnet_stands_beside_torch(toolkit_cli: Run) -> None:
    done = toolkit_cli(
        "bench-training", "mlp", "--data", "diabetes", "--batch-size", 10, "--json", *FEW,
        "--trainer", "torch:eager,mxnet:gluon", "--python", f"mxnet={mxnet_python()}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours, theirs = json.loads(done.stdout)["rows"]
    assert (ours["status"], theirs["status"]) == ("ok", "ok")
    assert ours["learning"]["start"] == theirs["learning"]["start"]
    assert theirs["parity"]["passed"] is True
    assert theirs["parity"]["max_rel"] < 1e-3
    assert theirs["provenance"]["details"]["numpy"] == "1.23.5"


def test_mxnet_without_its_environment_says_how_to_make_it(toolkit_cli: Run) -> None:
    done = toolkit_cli(
        "bench-training", "mlp", "--data", "diabetes", "--trainer", "mxnet:gluon", *FEW
    )
    assert done.returncode == 3
    assert "make mxnet-env" in done.stdout


def test_a_net_of_the_user_s_own(toolkit_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("WIDTH = 3\n")
    (tmp_path / "my_net.py").write_text(
        "import torch\nfrom models import WIDTH\n"
        "def make():\n"
        "    return torch.nn.Sequential(torch.nn.Linear(10, WIDTH), torch.nn.Linear(WIDTH, 1))\n"
    )
    done = toolkit_cli(
        "bench-training", "my_net.py:make", "--data", "diabetes", "--trainer", "torch:eager",
        "--json", *FEW,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"][0]["artifact"] == "my_net.py:make"


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    command = [
        TOOLKIT, "bench-training", "mlp", "--data", "diabetes", "--trainer", "torch:eager",
        "--epochs", "1000000", "--threads", "1",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=dict(os.environ),
    )  # fmt: skip
    assert process.stderr is not None
    assert "prepare" in process.stderr.readline()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "what was measured until then is in" in err
    (path,) = (tmp_path / "results").glob("*.json")
    row = json.loads(path.read_text())["rows"][0]
    assert row["learning"]["losses"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("mlp", "--trainer", ","), "expected names"),
        (("mlp", "--trainer", "torch:"), "expected framework:mode"),
        (("mlp", "--trainer", "torch:eager,torch:eager"), "each once"),
        (("mpl", "--trainer", "torch:eager"), "Did you mean 'mlp'"),
        (("mlp", "--trainer", "torch:eager", "--set", "hiden=3"), "Did you mean 'hidden'"),
        (("mlp", "--trainer", "torch:eager", "--batch-size", "9999"), "batches of 9999"),
        (("mlp", "--trainer", "torch:eager", "--rows", "0"), "Got batches of 64"),
        (("mlp", "--trainer", "torch:eager", "--lr", "-1"), "expected above 0"),
        (("lenet", "--trainer", "torch:eager"), "takes rows of 3 x 32 x 32"),
        (("mlp", "--trainer", "torch:eager", "--device", "gpu"), "no device named 'gpu'"),
    ],
)
def test_wrong_use(toolkit_cli: Run, args: tuple[str, ...], says: str) -> None:
    done = toolkit_cli("bench-training", *args, "--data", "diabetes")
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr

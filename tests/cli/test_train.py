"""toolkit train: what it records, what it keeps, how it goes on, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import toolkit
from tests.conftest import TOOLKIT, Run
from toolkit.cli import main
from toolkit.measuring.timing.engine import Procedure

NET = """
from torch import nn

import models


def make_net():
    hidden = models.HIDDEN
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3072, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, 10),
    )


def number():
    return 3


def broken():
    raise ValueError("no net today")
"""
QUICK = ("--data", "digits", "--batch-size", 256, "--threads", 1)
FILES = {"manifest.json", "weights.safetensors", "resume.safetensors"}


Here = Callable[..., tuple[object, str, str]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """The command line in this process: its exit code, standard output and standard error."""
    monkeypatch.setattr(main, "_end_like_ctrl_c", lambda *signals: [])

    def run(*args: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["toolkit", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            main.main()
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder: a model of his own, and a `models.py` that is not ours."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.py").write_text("HIDDEN = 16\n")
    (tmp_path / "my_net.py").write_text(NET)
    return tmp_path


def bits(checkpoint: Path) -> tuple[bytes, bytes]:
    names = ("weights.safetensors", "resume.safetensors")
    one, other = ((checkpoint / name).read_bytes() for name in names)
    return one, other


def manifest(checkpoint: Path) -> dict:
    return json.loads((checkpoint / "manifest.json").read_text())


def test_a_record_says_what_each_epoch_came_to(toolkit_cli: Run, tmp_path: Path) -> None:
    done = toolkit_cli(
        "train", "lenet", *QUICK, "--epochs", 2, "--optimizer", "adam", "--lr", 0.002,
        "--schedule", "step:1:0.5", "--threads", 1, "--out", "m", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    training = found["training"]
    assert set(found["metrics"]) == {"test_loss", "test_accuracy"}
    assert [record["learning_rate"] for record in training["history"]] == [0.002, 0.001]
    for record in training["history"]:
        assert record["train_ns"] > 0
        assert record["test_ns"] > 0
        assert record["samples_per_s"] == pytest.approx(1437 / (record["train_ns"] / 1e9))
        assert record["peak_bytes"] > 10 * 2**20
    assert training["prepare_ns"] > 0
    assert training["inference"]["rows"] == 360
    assert training["provenance"]["threads"] == 1
    assert training["recipe"]["momentum"] == 0
    assert {path.name for path in (tmp_path / "m").iterdir()} == FILES
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "train lenet 1/2",
        "train lenet 2/2",
    ]


@pytest.mark.parametrize("model", ["my_net.py:make_net", "lenet"])
def test_resuming_gives_what_one_run_gives_bit_for_bit(place: Path, model: str) -> None:
    plan = {"data": "digits", "batch": 256, "threads": 1, "schedule": "step:3:0.1", "seed": 4}
    toolkit.train(model, **plan, epochs=4, out="whole")
    toolkit.train(model, **plan, epochs=2, out="half")
    toolkit.train(model, resume="half", epochs=4, out="rest")
    assert bits(place / "whole") == bits(place / "rest")
    assert manifest(place / "half")["epoch"] == 2
    history = manifest(place / "rest")["training"]["history"]
    assert history[:2] == manifest(place / "half")["training"]["history"]
    assert manifest(place / "rest")["metrics"] == manifest(place / "whole")["metrics"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_a_signal_ends_can_be_gone_on_with(place: Path, number: signal.Signals) -> None:
    args = ("train", "my_net.py:make_net", *map(str, QUICK), "--epochs", "3000", "--out", "cut")
    running = subprocess.Popen([TOOLKIT, *args], cwd=place, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    for line in running.stderr:
        if " 3/3000" in line:
            break
    running.send_signal(number)
    running.send_signal(number)
    running.stderr.read()
    running.stderr.close()
    assert running.wait(timeout=60) == 128 + number
    cut = manifest(place / "cut")
    done_epochs = cut["epoch"]
    assert 3 <= done_epochs < 3000
    assert cut["training"]["interrupted"] is True
    assert {path.name for path in place.iterdir()} - {"__pycache__"} == {
        "cut", "models.py", "my_net.py",
    }  # fmt: skip
    model, more = "my_net.py:make_net", done_epochs + 2
    toolkit.train(model, resume="cut", epochs=more, out="rest")
    toolkit.train(
        model, data="digits", batch=256, threads=1, epochs=more, out="whole",
    )  # fmt: skip
    assert bits(place / "whole") == bits(place / "rest")


def test_a_run_that_is_killed_leaves_its_last_epoch(place: Path) -> None:
    args = ("train", "my_net.py:make_net", *map(str, QUICK), "--epochs", "3000", "--out", "cut")
    running = subprocess.Popen([TOOLKIT, *args], cwd=place, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    for line in running.stderr:
        if " 2/3000" in line:
            break
    time.sleep(0.05)
    running.kill()
    running.stderr.read()
    running.stderr.close()
    running.wait(timeout=60)
    done = manifest(place / "cut")["epoch"]
    assert done >= 2
    rest = toolkit.train("my_net.py:make_net", resume="cut", epochs=done + 1, out="rest")
    assert rest.epoch == done + 1


def test_a_loss_that_is_no_number_keeps_the_last_good_epoch(here: Here, place: Path) -> None:
    code, _, said = here("train", "lenet", *QUICK, "--lr", 1e30, "--epochs", 2, "--out", "m")
    assert code == 1
    assert "Training stopped in epoch 1, step 2 of 6: the loss became nan" in said
    assert "Kept: m holds the model after epoch 0" in said
    assert manifest(place / "m")["epoch"] == 0
    assert {path.name for path in (place / "m").iterdir()} == FILES


LIMITED = """
import resource, sys
from toolkit.cli.main import main
from toolkit.core.artifact import Checkpoint

save, saved = Checkpoint.save.__func__, []

def limited(cls, *args, **kwargs):
    if len(saved) == {after}:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    saved.append(1)
    return save(cls, *args, **kwargs)

Checkpoint.save = classmethod(limited)
sys.argv = ["toolkit", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("after", [0, 2])
def test_without_room_the_last_that_fitted_is_kept(place: Path, after: int) -> None:
    args = ("train", "my_net.py:make_net", *map(str, QUICK), "--epochs", "5", "--out", "m")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.replace("{after}", str(after)), *args],
        cwd=place, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    if after:
        assert "Kept: m holds the model after epoch 1" in done.stderr
        assert manifest(place / "m")["epoch"] == 1
    assert {path.name for path in place.iterdir()} - {"__pycache__"} == {
        "models.py", "my_net.py", *(["m"] if after else []),
    }  # fmt: skip


def test_a_model_of_the_user_s_own_says_where_it_came_from(place: Path) -> None:
    for source, out in (("my_net.py:make_net", "a"), ("my_net:make_net", "b")):
        toolkit.train(source, data="digits", batch=256, threads=1, epochs=1, out=out)
        found = manifest(place / out)
        assert found["training"]["source"]["code"] == source
        assert (found["spec"]["name"], found["spec"]["family"]) == ("make_net", "own")
        assert found["spec"]["signature"]["inputs"][0]["shape"] == ["batch", 3, 32, 32]
    assert bits(place / "a") == bits(place / "b")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("trained")
    (place / "models.py").write_text("HIDDEN = 16\n")
    (place / "my_net.py").write_text(NET)
    with contextlib.chdir(place):
        toolkit.train("lenet", data="digits", batch=256, threads=1, epochs=2, out="lenet")
        toolkit.train(
            "my_net.py:make_net", data="digits", batch=256, threads=1, epochs=2, out="net"
        )
    return place


LENET = ("lenet", "--data", "digits")
RESUME = ("--resume", "lenet")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("lenet",), "Missing data"),
        (("--data", "digits"), "Missing a model"),
        ((*LENET, "--set", "bloks=3"), "There is no option of model 'lenet'"),
        ((*LENET, "--set", "blocks"), "expected name=value"),
        ((*LENET, "--data-option", "x=1"), "There is no option of data set 'digits'"),
        ((*LENET, "--mode", "fussed"), "Did you mean 'fused'?"),
        ((*LENET, "--framework", "troch"), "Did you mean 'torch'?"),
        ((*LENET, "--optimizer", "adm"), "sgd or adam or rmsprop"),
        ((*LENET, "--optimizer", "adam", "--momentum", "0.9"), "its betas are fixed"),
        ((*LENET, "--schedule", "step:3"), "expected constant, cosine or step"),
        ((*LENET, "--augment", "crp"), "crop or flip"),
        ((*LENET, "--augment", "none,crop"), "Give none alone"),
        ((*LENET, "--device", "gpu"), "expected cpu, cuda or cuda:N"),
        ((*LENET, "--loader-workers", "-1"), "0 or more"),
        ((*LENET, "--threads", "0"), "Got 0 threads"),
        ((*LENET, "--batch-size", "0"), "Got batch 0"),
        (("my_nt.py:make_net", "--data", "digits"), "Did you mean my_net.py"),
        (("my_net.py:make_nett", "--data", "digits"), "Did you mean 'make_net'?"),
        (("nosuch.module:make_net", "--data", "digits"), "There is no module 'nosuch.module'"),
        (("my_net.py:number", "--data", "digits"), "expected a torch.nn.Module"),
        (("my_net.py:broken", "--data", "digits"), "ValueError: no net today"),
        (("my_net.py:make_net", "--data", "digits", "--set", "a=1"), "Got --set a"),
        (RESUME, "nothing is left to do"),
        ((*RESUME, "--epochs", "4"), "its epochs would have had other rates"),
        ((*RESUME, "--lr", "0.5"), "Got learning-rate 0.5"),
        ((*RESUME, "--mode", "fused"), "was trained with eager"),
        ((*RESUME, "--seed", "9"), "Got seed 9"),
        (("alexnet", *RESUME), "was trained with lenet"),
        (("--resume", "net", "--epochs", "4"), "resuming needs its code again"),
        (("my_net:make_net", "--resume", "net", "--epochs", "4"), "Got source"),
        (("--resume", "my_net.py"), "no known kind"),
    ],
)
def test_wrong_use(
    trained: Path, here: Here, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(trained)
    before = sorted(path for path in trained.rglob("*") if "__pycache__" not in path.parts)
    code, printed, said = here("train", *args, "--out", "new")
    assert code == 2, (printed, said)
    assert says in said
    assert "Traceback" not in said
    assert printed == ""
    after = sorted(path for path in trained.rglob("*") if "__pycache__" not in path.parts)
    assert after == before


def test_a_model_of_the_user_s_own_lives_on_without_its_code(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verified, measured, exported: from another place, the code gone."""
    for name in ("net",):
        shutil.copytree(trained / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    found = toolkit.verify("net", data="digits", runtimes=["torch"])
    assert found.passed
    assert found.scores["accuracy"] == pytest.approx(
        manifest(Path("net"))["metrics"]["test_accuracy"]
    )
    done = toolkit.export("net", to="onnx", out="net-onnx")
    assert done.weights.passed
    assert done.outputs.reference == "torch"
    result = toolkit.bench(
        "net-onnx", runtimes=["torch", "onnxruntime"], procedure=Procedure(warmup=1, runs=11)
    )
    assert [row.status for row in result.rows] == ["ok", "ok"]


def test_a_module_that_cannot_be_exported_is_trained_all_the_same(
    tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.fc = nn.Linear(3072, 10)\n"
        "    def forward(self, x):\n"
        "        x = x.flatten(1)\n"
        "        return self.fc(x) if float(x.sum()) > 1e9 else self.fc(x + 0)\n"
    )
    monkeypatch.chdir(tmp_path)
    code, _, said = here("train", "net.py:Net", *QUICK, "--epochs", 1, "--out", "m")
    assert code == 0, said
    assert "torch.export cannot follow Net" in " ".join(said.split())
    assert {path.name for path in (tmp_path / "m").iterdir()} == FILES
    code, _, said = here("verify", "m", "--data", "digits", "--runtime", "torch")
    assert code in (2, 3)
    assert "has no program.pt2" in " ".join(said.split())

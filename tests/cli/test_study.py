"""toolkit study: a matrix of cells, each run once, whatever breaks a run off."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import toolkit
from tests.conftest import TOOLKIT, Run, run_toolkit
from tests.mxnet_env import mxnet_python
from toolkit.core.artifact import Checkpoint
from toolkit.study.store import CELL_FILE

STUDY = """
title = "A small one"
about = "Of diabetes."
limits = ["Nothing."]

[[train]]
model = "mlp"
data = "diabetes"
seed = [0, 1]
epochs = 2

[[export]]
to = "onnx"

[[verify]]
runtimes = ["torch", "onnxruntime"]

[[bench]]
runtimes = ["torch", "onnxruntime", "tensorrt"]
batch = [1, 8]
runs = 20
warmup = 3

[[bench-training]]
model = "mlp"
data = "diabetes"
trainers = ["torch:eager", "torch:nosuch"]
batch = 64
runs = 12
warmup = 2

[[exclude]]
step = "bench"
seed = 1

[[table]]
title = "Errors"
of = "trainings"
rows = ["seed"]
metrics = ["test_mae"]
reference = '''
seed, test_mae
0, 0.5
7, 0.25
'''

[[table]]
title = "By epoch"
of = "epochs"
rows = ["seed"]
metrics = ["train_mae"]
across = "epoch"
at = [1, 2]

[[plot]]
title = "Error against time"
of = "trainings"
x = "train_s"
y = "test_mae"
by = ["seed"]
kind = "point"
"""
CELLS = 9
FORMS = {"torch": "checkpoint", "onnxruntime": "onnx", "tensorrt": "tensorrt"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A study that was run, and what it told."""
    place = tmp_path_factory.mktemp("study")
    (place / "small.toml").write_text(STUDY)
    done = run_toolkit("study", "run", "small.toml", "--out", "out", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "out", json.loads(done.stdout)


def states(told: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for cell in told["cells"]:
        found.setdefault(cell["step"], []).append(cell["state"])
    return found


def test_every_cell_is_done_after_what_it_stands_on(ran: tuple[Path, dict[str, Any]]) -> None:
    out, told = ran
    assert states(told) == {
        "train": ["done"] * 2,
        "export": ["done"] * 2,
        "verify": ["done"] * 2,
        "bench": ["done"] * 2,
        "bench-training": ["done"],
    }
    assert told["seconds_left"] == 0
    for cell in told["cells"]:
        document = json.loads((out / "cells" / cell["id"] / CELL_FILE).read_text())
        assert document["parents"] == cell["parents"]
    assert (out / "report.html").stat().st_size > 100_000


def test_mxnet_trains_in_its_own_environment(toolkit_cli: Run, tmp_path: Path) -> None:
    (tmp_path / ".venv-mxnet").symlink_to(Path(mxnet_python()).parents[1])
    (tmp_path / "mxnet.toml").write_text(
        """
        title = "MXNet"
        [[train]]
        model = "mlp"
        data = "diabetes"
        trainer = ["torch:eager", "mxnet:hybrid"]
        epochs = 1
        """
    )
    done = toolkit_cli("study", "run", "mxnet.toml", "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    ids = [cell["id"] for cell in json.loads(done.stdout)["cells"]]
    torch, mxnet = (
        Checkpoint.load(tmp_path / "out" / "cells" / one / "checkpoint").training for one in ids
    )
    assert mxnet["framework"] == "mxnet"
    loss = torch["history"][0]["train_loss"]
    assert mxnet["history"][0]["train_loss"] == pytest.approx(loss, rel=1e-3)


def test_status_and_report_need_the_directory_alone(
    ran: tuple[Path, dict[str, Any]], toolkit_cli: Run
) -> None:
    out, told = ran
    done = toolkit_cli("study", "status", out, "--json")
    found = json.loads(done.stdout)
    assert found["counts"] == {"done": CELLS}
    assert [one["id"] for one in found["cells"]] == [one["id"] for one in told["cells"]]
    shown = toolkit_cli("study", "status", out)
    assert "9 done" in shown.stdout
    report = toolkit_cli("report", out, "--out", "r.json")
    assert report.returncode == 0, report.stderr


def test_tables_have_the_reference_beside_ours(
    ran: tuple[Path, dict[str, Any]], toolkit_cli: Run, tmp_path: Path
) -> None:
    assert toolkit_cli("report", ran[0], "--out", "r.json").returncode == 0
    report = json.loads((tmp_path / "r.json").read_text())
    errors, by_epoch = report["tables"][:2]
    assert errors["columns"] == ["seed", "test MAE", "test MAE, reference", "why not"]
    seeds = {row[0]: row[1:] for row in errors["rows"]}
    assert seeds[0][0] > 0
    assert seeds[0][1] == 0.5
    assert seeds[1][1] is None
    assert seeds[7] == [None, 0.25, "not part of this run"]
    assert by_epoch["columns"] == ["seed", "epoch 1", "epoch 2"]
    assert [row[0] for row in by_epoch["rows"]] == [0, 1]
    kinds = {kind: len(records) for kind, records in report["records"].items()}
    assert kinds == {"trainings": 2, "epochs": 4, "rows": 6, "training_rows": 2, "accuracy": 4}


def test_rows_that_cannot_run_keep_their_reason(
    ran: tuple[Path, dict[str, Any]], toolkit_cli: Run, tmp_path: Path
) -> None:
    assert toolkit_cli("report", ran[0], "--out", "r.json").returncode == 0
    records = json.loads((tmp_path / "r.json").read_text())["records"]
    for row in records["rows"]:
        assert (row["status"] == "ok") is (row["runtime"] != "tensorrt")
        assert row["form"] == FORMS[row["runtime"]]
    trainers = {row["trainer"]: row for row in records["training_rows"]}
    assert trainers["torch:eager"]["epoch_ms"] > 0
    assert "nosuch" in trainers["torch:nosuch"]["reason"]


def test_the_same_command_again_runs_nothing(ran: tuple[Path, dict[str, Any]]) -> None:
    out, _ = ran
    before = stored(out)
    again = run_toolkit("study", "run", "small.toml", "--out", "out", cwd=out.parent)
    assert again.returncode == 0, again.stderr
    assert "nothing is left to do" in again.stderr
    assert stored(out) == before


def stored(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in (out / "cells").rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("content", [b"", b"{", None])
def test_a_cell_with_a_damaged_record_is_run_again(
    content: bytes | None, ran: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, told = ran
    copy = shutil.copytree(out, tmp_path / "out")
    (tmp_path / "small.toml").write_text(STUDY)
    id = next(cell["id"] for cell in told["cells"] if cell["step"] == "verify")
    record = copy / "cells" / id / CELL_FILE
    record.unlink() if content is None else record.write_bytes(content)
    status = run_toolkit("study", "status", "out", "--json", cwd=tmp_path)
    (damaged,) = [c for c in json.loads(status.stdout)["cells"] if c["state"] == "to do"]
    assert damaged["id"] == id
    assert CELL_FILE in damaged["reason"]
    report = run_toolkit("report", "out", "--json", cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    assert CELL_FILE in json.loads(report.stdout)["warnings"][0]
    others = {path: data for path, data in whole(copy).items() if id not in path}
    again = run_toolkit("study", "run", "small.toml", "--out", "out", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert f"The cell {id} is run again" in again.stderr
    assert states(json.loads(again.stdout)) == states(told)
    assert {path: data for path, data in whole(copy).items() if id not in path} == others


def test_the_plan_is_told_and_nothing_run(toolkit_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(STUDY)
    done = toolkit_cli("study", "run", "small.toml", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"small: {CELLS} to do" in done.stdout
    assert "to do  to onnx\n" in done.stdout
    assert "left: " in done.stdout
    assert not (tmp_path / "studies").exists()
    some = toolkit_cli("study", "run", "small.toml", "--dry-run", "--only", "export-*", "--json")
    wanted = [one["step"] for one in json.loads(some.stdout)["cells"] if one["wanted"]]
    assert wanted == ["train", "export", "train", "export"]


def test_a_cell_that_fails_costs_what_stands_on_it(toolkit_cli: Run, tmp_path: Path) -> None:
    text = STUDY.partition("[[exclude]]")[0].replace("epochs = 2", "epochs = 2\nlearning_rate = LR")
    (tmp_path / "s.toml").write_text(text.replace("LR", "[1e30, 0.001]").replace("[0, 1]", "0"))
    args = ("study", "run", "s.toml", "--out", "out", "--only", "bench-mlp*", "--json")
    done = toolkit_cli(*args)
    assert done.returncode == 0, done.stderr
    told = [one for one in json.loads(done.stdout)["cells"] if one["wanted"]]
    by_state = {state: [o["step"] for o in told if o["state"] == state] for state in
                ("failed", "skipped", "done")}  # fmt: skip
    assert by_state == {
        "failed": ["train"],
        "skipped": ["export", "bench", "bench"],
        "done": ["train", "export", "bench", "bench"],
    }
    failed = next(one for one in told if one["state"] == "failed")
    assert "Training stopped in epoch 1" in failed["reason"]
    skipped = next(one for one in told if one["state"] == "skipped")
    assert failed["id"] in skipped["reason"]
    again = toolkit_cli(*args)
    assert [one["seconds"] for one in json.loads(again.stdout)["cells"]] == [
        one["seconds"] for one in json.loads(done.stdout)["cells"]
    ]
    retried = toolkit_cli(*args, "--retry")
    anew = next(o for o in json.loads(retried.stdout)["cells"] if o["id"] == failed["id"])
    assert anew["state"] == "failed"
    assert anew["seconds"] != failed["seconds"]


def test_where_nothing_could_be_done_the_exit_code_says_so(
    toolkit_cli: Run, tmp_path: Path
) -> None:
    (tmp_path / "s.toml").write_text(
        '[[train]]\nmodel = "mlp"\ndata = "diabetes"\nlearning_rate = 1e30\nepochs = 1\n'
    )
    done = toolkit_cli("study", "run", "s.toml", "--out", "out")
    assert done.returncode == 3
    assert "train-mlp" in done.stdout
    assert "Training stopped" in done.stdout


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("study", "run", "none.toml"), "Could not read the study"),
        (("study", "run", "lenet-deploymnt"), "lenet-deployment"),
        (("study", "run", "small.toml", "--only", "nosuch"), "No cell of the study matches"),
        (("study", "run", "small.toml", "--executor", "slurm"), "no executor named 'slurm'"),
        (("study", "run", "small.toml", "--address", "x:1"), "--executor ray"),
        (("study", "run", "small.toml", "--out", "full"), "holds no study"),
        (("study", "status", "full"), "not the directory of a study"),
        (("report", "full"), "holds no results"),
        (("report", "small.toml"), "no result in results/"),
    ],
)
def test_wrong_use_is_told(
    toolkit_cli: Run, tmp_path: Path, args: tuple[str, ...], told: str
) -> None:
    (tmp_path / "small.toml").write_text(STUDY)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    done = toolkit_cli(*args)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_two_at_once_in_one_directory(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(STUDY)
    command = [TOOLKIT, "study", "run", "small.toml", "--out", "out"]
    first = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(tmp_path / "out" / "study.json")
        second = run_toolkit(*command[1:], cwd=tmp_path)
        assert second.returncode == 2
        assert "Another process runs a study" in second.stderr
    finally:
        first.kill()
        first.wait()


def wait_for(path: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.05)


@pytest.mark.real_start  # a fork takes longer, and an interrupt during it leaves the cell's folder
def test_ctrl_c_keeps_what_was_done(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(STUDY)
    command = [TOOLKIT, "study", "run", "small.toml", "--out", "out"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out" / "cells").glob(f"*/{CELL_FILE}")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not list((tmp_path / "out" / "cells").glob(".*"))


def test_ctrl_c_while_a_cell_starts_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def interrupted(*args: Any, **options: Any) -> subprocess.Popen[str]:
        process = popen(*args, **options)
        if "toolkit.study.worker" in args[0]:
            started.append(process)
            signal.raise_signal(signal.SIGINT)
        return process

    (tmp_path / "small.toml").write_text(STUDY)
    monkeypatch.setattr("subprocess.Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        toolkit.run_study(tmp_path / "small.toml", out=tmp_path / "out")
    (process,) = started
    assert process.returncode is not None
    assert list((tmp_path / "out" / "cells").iterdir()) == []


def test_killed_again_and_again_it_loses_nothing_and_runs_nothing_twice(tmp_path: Path) -> None:
    """Ten times, each at a random moment: what is there stays, byte for byte, and no process of a
    cell outlives its study."""
    (tmp_path / "small.toml").write_text(STUDY)
    command = [TOOLKIT, "study", "run", "small.toml", "--out", "out"]
    rng, before = random.Random(0), {}
    for _ in range(10):
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=rng.uniform(0.5, 6.0))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        now = whole(tmp_path / "out")
        assert {path: now.get(path) for path in before} == before
        before = now
    done = run_toolkit(*command[1:], "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    now = whole(tmp_path / "out")
    assert {path: now.get(path) for path in before} == before
    assert [one["state"] for one in json.loads(done.stdout)["cells"]] == ["done"] * CELLS
    assert len(list((tmp_path / "out" / "cells").iterdir())) == CELLS


def whole(out: Path) -> dict[str, bytes]:
    """Every file of the cells that are done."""
    return (
        {path: content for path, content in stored(out).items() if not path.startswith("cells/.")}
        if out.exists()
        else {}
    )


def test_those_that_come_along_are_listed_and_shown(toolkit_cli: Run) -> None:
    listed = json.loads(toolkit_cli("study", "list", "--json").stdout)
    names = [one["name"] for one in listed["studies"]]
    assert names == [
        "alexnet-vgg-cifar", "lenet-deployment", "mlp-california", "resnet-odenet", "traffic-signs",
    ]  # fmt: skip
    shown = toolkit_cli("study", "show", "lenet-deployment")
    assert shown.stdout.startswith('title = "LeNet on CIFAR-10')
    plain = toolkit_cli("study", "list")
    assert "mlp-california" in plain.stdout

"""toolkit optimize: the fastest form that is still good enough, as a bundle, with its evidence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import toolkit
from tests.conftest import TOOLKIT, Exported, Run, run_toolkit
from tests.fake_cuda import fake_cuda
from toolkit.core.bundle import BUNDLE_FILE, SCHEMA
from toolkit.core.documents import read_document
from toolkit.core.errors import SourceError, UsageError

ROWS = 2000


@pytest.fixture(scope="module")
def many_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits again and again under noise, of which enough are test rows to tell half a point."""
    from toolkit.data import load_splits

    splits = load_splits("digits", shape=(3, 32, 32))
    rng = np.random.default_rng(0)
    picks = rng.integers(len(splits.test), size=ROWS)
    noise = 0.02 * rng.standard_normal((ROWS, 3, 32, 32)).astype(np.float32)
    path = tmp_path_factory.mktemp("rows") / "digits.npz"
    np.savez(
        path,
        inputs=splits.train.inputs,
        targets=splits.train.targets,
        test_inputs=splits.test.inputs[picks] + noise,
        test_targets=splits.test.targets[picks],
    )
    return path


@pytest.fixture(scope="module")
def searched(
    main_path: Path, many_rows: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A search of LeNet at batch 64, and what it told."""
    out = tmp_path_factory.mktemp("searched") / "search"
    told = told_by(main_path / "lenet", out, many_rows, "--batch", 64)
    return out, told


def told_by(source: Path, out: Path, rows: Path, *args: object) -> dict[str, Any]:
    done = run_toolkit(
        "optimize", source, "--data", rows, "--out", out, "--budget", "12s", "--json", *args,
        cwd=out.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def stored(out: Path) -> dict[Path, bytes]:
    """All that was measured or decided."""
    found = [*(out / "rounds").rglob("*.json"), *(out / "accuracy").rglob("*.json")]
    return {path: path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def on_a_double_of_a_gpu() -> dict[str, str]:
    """The environment in which ONNX Runtime's CUDA provider is a double, which uses the CPU."""
    double = Path(__file__).parents[1] / "doubles" / "gpu_on_cpu"
    places = [str(double), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**fake_cuda(capability=90), "PYTHONPATH": os.pathsep.join(places)}


@pytest.mark.real_start
def test_on_a_gpu_its_runtimes_compete(
    main_path: Path, tmp_path: Path, on_a_double_of_a_gpu: dict[str, str]
) -> None:
    """What is searched, told and written; that it is faster, or right on a GPU, is not shown."""
    done = run_toolkit(
        "optimize", main_path / "lenet-onnx", "--data", "digits", "--max-drop", 2, "--batch", 8,
        "--device", "cuda", "--allow", "tf32,int8", "--out", "s", "--budget", "5s", "--json",
        cwd=tmp_path, env=on_a_double_of_a_gpu,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    candidate_results = told["standings"]
    able = [one for one in candidate_results if one["out"] is None]  # the driver runs no engine
    assert {one["runtime"] for one in able} == {"onnxruntime-cuda"}
    assert {one["precision"] for one in able} == {"float32", "tf32"}
    assert any(one["tuning"] == {"prefer_nhwc": "1"} for one in candidate_results)
    assert all(one["threads"] == candidate_results[0]["threads"] for one in candidate_results)
    assert any("tensorrt cannot run here" in remark for remark in told["remarks"])
    bundle = tmp_path / "s" / "bundle"
    written = json.loads((bundle / BUNDLE_FILE).read_text())
    assert written["runtime"] == "onnxruntime-cuda"
    assert written["evidence"]["provenance"]["device"] == "cuda"
    version = written["evidence"]["provenance"]["version"]
    wanted = f"numpy\nonnxruntime-gpu[cuda,cudnn]=={version}\n"
    assert (bundle / "requirements.txt").read_text() == wanted
    given = {"input": np.random.default_rng(0).random((8, 3, 32, 32), np.float32)}
    np.savez(tmp_path / "in.npz", **given)
    subprocess.run(
        [sys.executable, bundle / "run.py", "in.npz", "out.npz"],
        cwd=tmp_path, env=on_a_double_of_a_gpu, check=True,
    )  # fmt: skip
    with toolkit.load(main_path / "lenet-onnx") as session:
        expected = session.run(given)["logits"]
    np.testing.assert_allclose(np.load(tmp_path / "out.npz")["logits"], expected, atol=1e-4)


def test_without_a_gpu_it_says_so(main_path: Path, tmp_path: Path) -> None:
    done = run_toolkit(
        "optimize", main_path / "lenet", "--exact", "--device", "cuda", "--out", "s",
        cwd=tmp_path, env={"CUDA_VISIBLE_DEVICES": "-1"},
    )  # fmt: skip
    assert done.returncode == 3
    assert "torch-cuda cannot run here" in done.stderr
    assert not (tmp_path / "s").exists()


def test_it_finds_one_that_is_faster_and_as_accurate(
    searched: tuple[Path, dict[str, Any]],
) -> None:
    out, told = searched
    chosen = told["chosen"]
    assert chosen["ratio"] < 0.9
    if any("measured once more" in remark for remark in told["remarks"]):
        assert chosen["ci95"] is None
    else:
        assert chosen["ci95"][0] <= chosen["ratio"] <= chosen["ci95"][1]
    assert chosen["verdict"]["gate"] == "passed"
    figures = chosen["verdict"]["figures"]
    assert figures["rows"] == ROWS
    assert figures["same_to_rounding"] or figures["drop"]["ci95"][1] <= 0.5
    assert {"bfloat16", "int8", "float32"} == {one["precision"] for one in told["standings"]}
    assert chosen["name"] in {one["name"] for one in told["standings"]}
    alive = [one for one in told["standings"] if one["out"] is None and one["ratio"]]
    assert min(alive, key=lambda one: one["ratio"])["name"] in told["pareto"]
    assert json.loads((out / "report.json").read_text())["chosen"]["name"] == chosen["name"]


def test_the_bundle_runs(searched: tuple[Path, dict[str, Any]], main_path: Path) -> None:
    out, told = searched
    bundle = out / "bundle"
    document = read_document(bundle / BUNDLE_FILE, SCHEMA)
    assert document["runtime"] == told["chosen"]["runtime"]
    assert document["options"]["tuning"] == told["chosen"]["tuning"]
    assert document["evidence"]["forward"]["median_ns"] > 0
    assert document["evidence"]["accuracy"]["gate"] == "passed"
    assert (
        document["preprocessing"]
        == json.loads((main_path / "lenet" / "manifest.json").read_text())["training"][
            "preprocessing"
        ]
    )
    feeds = {"input": np.random.default_rng(0).random((64, 3, 32, 32), np.float32)}
    with toolkit.load(bundle) as session:
        expected = session.run(feeds)
    with toolkit.load(main_path / "lenet", "torch") as session:
        original = session.run(feeds)
    assert np.abs(expected["logits"] - original["logits"]).max() < 1.0
    np.savez(out / "inputs.npz", **feeds)
    subprocess.run(
        [sys.executable, bundle / "run.py", out / "inputs.npz", out / "outputs.npz"], check=True
    )
    with np.load(out / "outputs.npz") as got:
        assert np.array_equal(got["logits"], expected["logits"])
    packages = (bundle / "requirements.txt").read_text().split()
    assert packages[0] == "numpy"
    assert packages[1].startswith(document["runtime"])


def test_what_was_measured_is_not_measured_again(
    searched: tuple[Path, dict[str, Any]], main_path: Path, many_rows: Path
) -> None:
    out, told = searched
    before = stored(out)
    again = told_by(main_path / "lenet", out, many_rows, "--batch", 64, "--budget", "0.01s")
    assert again["chosen"] == told["chosen"]
    assert stored(out) == before


def test_one_that_was_killed_goes_on(main_path: Path, tmp_path: Path) -> None:
    """Ended in its second round: what the first one found stays, and is not measured again."""
    source = main_path / "lenet-onnx"
    command = [TOOLKIT, "optimize", source, "--exact", "--out", "search", "--json"]
    killed = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    rounds, deadline = tmp_path / "search" / "rounds", time.monotonic() + 120
    while not list(rounds.glob("open-1/*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    killed.kill()
    killed.wait()
    before = stored(tmp_path / "search")
    done = run_toolkit(*command[1:], "--budget", "5s", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resuming the search" in done.stderr
    after = stored(tmp_path / "search")
    assert {path: after[path] for path in before} == before
    names = [path.parent.name for path in after if path.parent.parent.name == "rounds"]
    assert len(names) == len(set(names))
    told = json.loads(done.stdout)
    assert {one["precision"] for one in told["standings"]} == {"float32"}
    assert told["max_drop"] is None
    assert told["chosen"]["verdict"] is None


def test_too_few_rows_leave_out_lower_precision(artifact_dir: Path, toolkit_cli: Run) -> None:
    done = toolkit_cli("optimize", artifact_dir, "--out", "search", "--budget", "1s")
    assert done.returncode == 0, done.stderr
    assert "by 360 rows, even equal answers leave a drop of 1.06 points possible" in done.stdout
    assert "the budget was spent" in done.stdout
    assert "chosen: " in done.stdout
    assert "int8" not in done.stdout.partition("warning")[0]
    other = toolkit_cli("optimize", artifact_dir, "--out", "search", "--batch", 2)
    assert other.returncode == 2
    assert "contains another search: batch and rows differ" in other.stderr


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--budget", "soon"), "Got --budget soon, expected a duration"),
        (("--budget", "0s"), "Got a budget of 0 s"),
        (("--objective", "latancy"), "latency"),
        (("--allow", "int4"), "There is no precision to allow named 'int4'"),
        (("--exact", "--max-drop", "1"), "Got --exact and --max-drop"),
        (("--max-drop", "0"), "Got --max-drop 0"),
        (("--batch", "0"), "Got batch 0"),
        (("--data", "digit"), "digits"),
        (("--data", "absent.npz"), "absent.npz"),
        (("--out", "."), "exists, and contains no search"),
    ],
)
def test_wrong_use(
    args: tuple[str, ...], told: str, checkpoint_dir: Path, toolkit_cli: Run, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    out = () if "--out" in args else ("--out", "search")
    done = toolkit_cli("optimize", checkpoint_dir, *out, *args)
    assert done.returncode in (2, 3), done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "mine.txt").read_text() == "kept"
    assert not (tmp_path / "search").exists()


def foreign(path: Path, table: np.ndarray) -> Path:
    """`y = x @ table`, of another maker."""
    width, classes = table.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "table"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A foreign model, rows for it, and the classes that it gives them."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((16, 5)).astype(np.float32)
    rows = rng.standard_normal((1500, 16)).astype(np.float32)
    return foreign(tmp_path / "model.onnx", table), rows, (rows @ table).argmax(1)


def test_of_others_with_rows_and_labels(
    model: tuple[Path, np.ndarray, np.ndarray], toolkit_cli: Run, tmp_path: Path
) -> None:
    path, rows, classes = model
    np.savez(tmp_path / "rows.npz", x=rows, labels=classes)
    done = toolkit_cli(
        "optimize", path, "--data", "rows.npz", "--out", "search", "--budget", "1s", "--json"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "int8 is left out: rows.npz has no training rows" in " ".join(told["remarks"])
    assert told["chosen"]["verdict"]["gate"] == "passed"
    with toolkit.load(tmp_path / "search" / "bundle") as session:
        assert (session.run({"x": rows[:8]})["y"].argmax(1) == classes[:8]).all()


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("no labels", "rows.npz have no labels, by which to tell a drop in accuracy"),
        ("no data", "names no data set, by which to tell a drop in accuracy"),
        ("one class", "are class 3: accuracy on one class says nothing"),
        ("NaN in a row", "NaN or infinity in row 7"),
        ("NaN from the model", "gives NaN or infinity in y, row 0"),
        ("a label too large", "Label 9 in row 4"),
    ],
)
def test_rows_that_cannot_tell(
    kind: str,
    told: str,
    model: tuple[Path, np.ndarray, np.ndarray],
    toolkit_cli: Run,
    tmp_path: Path,
) -> None:
    path, rows, classes = model
    arrays = {"x": rows, "labels": classes}
    if kind == "no labels":
        arrays.pop("labels")
    elif kind == "one class":
        arrays["labels"] = np.full_like(classes, 3)
    elif kind == "NaN in a row":
        rows[7, 2] = np.nan
    elif kind == "NaN from the model":
        foreign(path, np.full((16, 5), np.nan, np.float32))
    elif kind == "a label too large":
        classes[4] = 9
    np.savez(tmp_path / "rows.npz", **arrays)
    data = () if kind == "no data" else ("--data", "rows.npz")
    done = toolkit_cli("optimize", path, *data, "--out", "search", "--budget", "1s")
    assert done.returncode in (1, 2, 3), done.stdout
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "search" / "bundle").exists()


def test_load_says_what_a_bundle_is(searched: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    bundle = searched[0] / "bundle"
    with pytest.raises(UsageError, match="has its own"):
        toolkit.load(bundle, "onnxruntime")
    with pytest.raises(SourceError, match="is a bundle"):
        toolkit.inspect(bundle)


def test_of_an_openvino_graph_its_options_compete(exported: Exported, tmp_path: Path) -> None:
    """Nothing else is made of it."""
    found = toolkit.optimize(
        exported("openvino"), out=tmp_path / "search", exact=True, budget_s=1.0
    )
    assert found.chosen.candidate.runtime == "openvino"
    assert found.chosen.candidate.form.name == "source"

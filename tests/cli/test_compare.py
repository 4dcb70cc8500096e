"""`toolkit compare`, as a CI uses it."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.conftest import Run

QUICK = ("--max-seconds", 2, "--scope", "forward", "--threads", 1)


def chain(path: Path, length: int, name: str = "x") -> Path:
    """So many matrix products in a row, 256 x 256 each; the more, the slower."""
    weight = np.eye(256, dtype=np.float32)
    names = [name, *(f"y{i}" for i in range(length))]
    nodes = [
        onnx.helper.make_node("MatMul", [before, "w"], [after])
        for before, after in itertools.pairwise(names)
    ]
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "chain",
        [onnx.helper.make_tensor_value_info(name, kind, ["N", 256])],
        [onnx.helper.make_tensor_value_info(names[-1], kind, ["N", 256])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@pytest.mark.alone
def test_twice_the_work_fails_the_gate_and_half_of_it_passes(
    toolkit_cli: Run, tmp_path: Path
) -> None:
    short, long = chain(tmp_path / "short.onnx", 2), chain(tmp_path / "long.onnx", 24)
    done = toolkit_cli("compare", short, long, "--batch", 64, *QUICK, "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert (found["gate"], found["paired"]) == ("failed", True)
    (pair,) = found["pairs"]
    assert (pair["runtime"], pair["batch"], pair["verdict"]) == ("onnxruntime", 64, "SLOWER")
    assert pair["ratio"] > 1.5
    done = toolkit_cli("compare", long, short, "--batch", 64, *QUICK)
    assert done.returncode == 0, done.stdout
    assert "B is not slower than A" in done.stdout
    assert "FASTER" in done.stdout


@pytest.mark.alone
def test_stored_results_are_compared_without_measuring(toolkit_cli: Run, tmp_path: Path) -> None:
    ids = []
    for length in (2, 24):
        model = chain(tmp_path / f"{length}.onnx", length)
        done = toolkit_cli("bench", model, "--runtime", "onnxruntime", *QUICK, "--json")
        ids.append(json.loads(done.stdout)["id"])
    before = sorted((tmp_path / "results").iterdir())
    done = toolkit_cli("compare", *ids)
    assert done.returncode == 1, done.stdout
    assert "measured apart" in done.stdout
    done = toolkit_cli("compare", *(tmp_path / "results" / f"{one}.json" for one in ids), "--json")
    assert json.loads(done.stdout)["paired"] is False
    assert sorted((tmp_path / "results").iterdir()) == before
    refused = toolkit_cli("compare", *ids, "--batch", 4)
    assert (refused.returncode, "--batch" in refused.stderr) == (2, True)
    mixed = toolkit_cli("compare", ids[0], model)
    assert (mixed.returncode, "stored result" in mixed.stderr) == (2, True)


def test_a_compared_pair_can_be_looked_at_again(toolkit_cli: Run, tmp_path: Path) -> None:
    model = chain(tmp_path / "m.onnx", 4)
    done = toolkit_cli("compare", model, model, *QUICK, "--tolerance", 10, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = json.loads(done.stdout)["results"]
    shown = toolkit_cli("results", "show", path)
    assert f"A: onnxruntime on {os.path.realpath(model)}" in shown.stdout
    assert f"B: onnxruntime on {os.path.realpath(model)}" in shown.stdout


def test_a_row_that_failed_cannot_be_told(toolkit_cli: Run, tmp_path: Path) -> None:
    model = chain(tmp_path / "m.onnx", 2)
    done = toolkit_cli("compare", model, model, *QUICK, "--runtime", "null")
    assert done.returncode == 3
    assert "does not compute the model" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["m.onnx"], "Missing argument"),
        (["m.onnx", "n.onnx"], "n.onnx does not exist"),
        (["m.onnx", "other.onnx"], "other.onnx does not take the inputs"),
        (["20260101T000000Z-1", "20260101T000000Z-2"], "There is no result"),
        (["a.json", "b.json"], "a.json"),
        (["m.onnx", "m.onnx", "--tolerance", "-1"], "--tolerance"),
        (["m.onnx", "m.onnx", "--runtime", "onnxruntme"], "onnxruntime"),
        (["m.onnx", "m.onnx", "--batch", "0"], "batch 0"),
        (["m.onnx", "m.onnx", "--cpus", "99"], "--cpus 99"),
    ],
)
def test_wrong_use(toolkit_cli: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    chain(tmp_path / "m.onnx", 1)
    chain(tmp_path / "other.onnx", 1, name="z")
    done = toolkit_cli("compare", *arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()

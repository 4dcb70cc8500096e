"""Memory of a row: growth on opening, growth that does not end, and the artifact's size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests import plugins
from tests.conftest import Run

pytestmark = pytest.mark.real_start  # a forked process has memory of the server

WEIGHTS = 4096 * 4096 * 4
LEAK = 1000  # bytes a pass, of the runtime `leaking`


@pytest.fixture
def heavy(tmp_path: Path) -> Path:
    """y = x w with weights of WEIGHTS bytes in a file of their own."""
    weights = np.ones((4096, 4096), np.float32)
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 4096])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 4096])
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(weights, "w")])
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, ir_version=9, opset_imports=opsets)
    path = tmp_path / "heavy.onnx"
    onnx.save(model, path, save_as_external_data=True, location="heavy.data", size_threshold=0)
    return path


def test_a_leak_is_said_and_nothing_else_is_called_one(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path
) -> None:
    env = plugins.install(tmp_path / "site")
    done = toolkit_cli(
        "bench", artifact_dir, "--runtime", "onnxruntime,leaking,null", "--scope", "forward",
        "--warmup", 10, "--runs", 30_000, "--json", env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (warning,) = [text for text in report["warnings"] if "grew steadily" in text]
    rows = warning.partition("grew steadily: ")[2].partition(". ")[0]
    assert rows.startswith("leaking (+")
    assert rows.count("(") == 1
    per_thousand = float(rows.partition("MiB, ")[2].partition(" KiB")[0].replace(",", ""))
    assert per_thousand * 1024 == pytest.approx(1000 * LEAK, rel=0.3)
    stored = json.loads((tmp_path / report["result"]).read_text())
    sizes = [block["rss_bytes"] for block in stored["rows"][1]["measurements"][0]["blocks"]]
    assert sizes == sorted(sizes)


def test_opening_tells_how_far_the_process_grew(toolkit_cli: Run, heavy: Path) -> None:
    done = toolkit_cli("bench", heavy, "--runtime", "onnxruntime", "--scope", "open", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (row,) = report["rows"]
    assert row["memory"]["artifact_bytes"] == heavy.stat().st_size + WEIGHTS
    opening = row["scopes"]["open"]
    assert opening["samples"] == 5
    assert opening["import_bytes"] > 2**20
    assert opening["open_bytes"] > 0.9 * WEIGHTS
    assert opening["first_run_bytes"] < WEIGHTS
    shown = toolkit_cli("results", "show", report["id"])
    assert shown.returncode == 0, shown.stderr
    assert "first run +" in shown.stdout
    assert " MiB" in shown.stdout


def test_telling_what_ran_is_in_no_memory_that_is_reported(toolkit_cli: Run, heavy: Path) -> None:
    """The session that is recorded holds the weights once more, after the peak was read.

    That peak is of opening, when ONNX Runtime holds them twice while it packs them.
    """
    done = toolkit_cli(
        "bench", heavy, "--runtime", "onnxruntime", "--scope", "forward", "--warmup", 1,
        "--runs", 12, "--json",
    )  # fmt: skip
    (row,) = json.loads(done.stdout)["rows"]
    assert row["provenance"]["details"]["nodes"]
    grown = sum(row["scopes"]["open"][f"{part}_bytes"] for part in ("import", "open", "first_run"))
    interpreter = 50 * 10**6
    assert row["memory"]["peak_rss_bytes"] < interpreter + grown + 1.3 * WEIGHTS

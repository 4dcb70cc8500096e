"""What ran is not what was asked for: the row fails, unless that was allowed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests import plugins
from tests.conftest import Run

QUICK = ("--scope", "forward", "--warmup", 1, "--runs", 12, "--json")


def rows(done: subprocess.CompletedProcess[str]) -> list[dict]:
    found: list[dict] = json.loads(done.stdout)["rows"]
    return found


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A model of float16, which ONNX Runtime and OpenVINO compute in float32 on most processors."""
    weights = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float16)
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT16, ["batch", 16])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT16, ["batch", 4])
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(weights, "w")])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=opsets), tmp_path / "half.onnx")
    return tmp_path / "half.onnx"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_another_precision_fails_its_row_or_warns(
    toolkit_cli: Run, half: Path, runtime: str
) -> None:
    strict = toolkit_cli("bench", half, "--runtime", runtime, *QUICK)
    allowed = toolkit_cli("bench", half, "--runtime", runtime, *QUICK, "--allow-fallback")
    (before,), (after,) = rows(strict), rows(allowed)
    ran = before["precision"]["ran"]
    fell_back = ran != "float16"
    assert strict.returncode == (3 if fell_back else 0), strict.stderr
    assert (before["status"] == "failed") is fell_back
    assert (f"Asked for float16, ran in {ran}" in (before["reason"] or "")) is fell_back
    assert allowed.returncode == 0, allowed.stderr
    assert (after["status"], after["reason"]) == ("ok", None)
    assert after["parity"]["passed"]
    warnings = json.loads(allowed.stdout)["warnings"]
    assert any(f"{runtime}: Asked for float16" in text for text in warnings) is fell_back


def test_a_row_allowed_to_be_coarser_is_held_to_coarser_bounds(
    toolkit_cli: Run, artifact_dir: Path
) -> None:
    """Where the processor has bfloat16, OpenVINO's outputs are within its bounds only."""
    done = toolkit_cli(
        "bench", artifact_dir, "--runtime", "onnxruntime,openvino", *QUICK, "--allow-fallback",
        "--option", "openvino.INFERENCE_PRECISION_HINT=bf16",
    )  # fmt: skip
    first, row = rows(done)
    assert (first["status"], row["status"]) == ("ok", "ok"), row["reason"]
    ran = row["precision"]["ran"]
    assert (row["parity"]["max_rel"] > 1e-4) is (ran != "float32")
    warnings = json.loads(done.stdout)["warnings"]
    assert any(f"checked with the bounds of {ran}" in text for text in warnings) is (
        ran != "float32"
    )


@pytest.mark.parametrize("allowed", [True, False])
def test_every_process_of_a_coarser_row_is_checked_with_its_bounds(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path, allowed: bool
) -> None:
    """The provenance, which decides the bounds, is known from the end of the first process."""
    done = toolkit_cli(
        "bench", artifact_dir, "--runtime", "onnxruntime,coarse", *QUICK, "--processes", 3,
        *(["--allow-fallback"] if allowed else []), env=plugins.install(tmp_path / "site"),
    )  # fmt: skip
    first, row = rows(done)
    assert first["status"] == "ok"
    assert (row["status"] == "ok") is allowed, row["reason"]
    assert (row["ratio"] is not None) is allowed
    assert row["scopes"]["forward"]["processes"] == 3


def test_another_device_fails_its_row_or_warns(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path
) -> None:
    env = plugins.install(tmp_path / "site")
    strict = toolkit_cli("bench", artifact_dir, "--runtime", "far", *QUICK, env=env)
    (row,) = rows(strict)
    assert strict.returncode == 3, strict.stderr
    assert row["status"] == "failed"
    assert "Asked for the cpu, ran on gpu." in row["reason"]
    assert "--allow-fallback" in row["reason"]
    allowed = toolkit_cli(
        "bench", artifact_dir, "--runtime", "far", *QUICK, "--allow-fallback", env=env
    )
    (row,) = rows(allowed)
    assert allowed.returncode == 0, allowed.stderr
    assert row["status"] == "ok"
    assert row["provenance"]["device"] == "gpu"
    assert any("ran on gpu" in text for text in json.loads(allowed.stdout)["warnings"])


def test_artifacts_that_fall_back_are_compared_where_that_is_allowed(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path
) -> None:
    """Without it there is nothing to compare, since both rows failed."""
    env = plugins.install(tmp_path / "site")
    compare = ("compare", artifact_dir, artifact_dir, "--runtime", "far", *QUICK)
    for options in ((), ("--allow-fallback",)):
        done = toolkit_cli(*compare, *options, env=env)
        (pair,) = json.loads(done.stdout)["pairs"]
        assert (pair["ratio"] is not None) is bool(options), done.stdout


def test_a_wrong_answer_is_not_allowed(toolkit_cli: Run, half: Path, tmp_path: Path) -> None:
    """--allow-fallback takes another precision, not other outputs."""
    model = onnx.load(half)
    model.graph.node[0].op_type = "RandomNormalLike"
    del model.graph.node[0].input[1]
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 16
    onnx.save(model, tmp_path / "random.onnx")
    done = toolkit_cli(
        "bench", tmp_path / "random.onnx", "--runtime", "onnxruntime", *QUICK, "--allow-fallback"
    )
    (row,) = rows(done)
    assert row["status"] == "failed"
    assert "Parity" in row["reason"]

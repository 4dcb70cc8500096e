"""Outputs whose declared shape is missing, or is not what the graph gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import toolkit
from exporters.onnx.reader import read_signature, wrong_extents

WEIGHT = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


def saved(path: Path, shape: list | None, *, rows: str | int = "n") -> Path:
    """y [rows, 3], of which `shape` is declared."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, path / "g.onnx")
    return path / "g.onnx"


@pytest.mark.parametrize(
    ("declared", "found", "wrong"),
    [
        (None, ("n", 3), False),
        (["n", 3], ("n", 3), False),
        (["rows", None], ("rows", None), False),
        ([1, 3], ("n", 3), True),
        (["n", 5], ("n", 3), True),
        ([1, 5], ("n", 3), True),
    ],
)
def test_what_is_inferred_replaces_wrong_extents(
    tmp_path: Path, declared: list | None, found: tuple, wrong: bool
) -> None:
    path = saved(tmp_path, declared)
    assert read_signature(path).outputs[0].shape == found
    remarks = wrong_extents(path)
    assert len(remarks) == wrong
    if wrong:
        assert "output y is declared as" in remarks[0]
        assert "[n, 3]" in remarks[0]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "onnx-reference"])
@pytest.mark.parametrize("declared", [[1, 3], [None, 5]])
def test_a_graph_with_wrong_extents_runs_at_any_batch(
    tmp_path: Path, runtime: str, declared: list
) -> None:
    with toolkit.load(saved(tmp_path, declared), runtime) as session:
        for rows in (4, 4, 2):
            x = np.random.default_rng(rows).standard_normal((rows, 4)).astype(np.float32)
            for _ in range(2):
                found = session.run({"x": x})["y"]
                np.testing.assert_allclose(found, x @ WEIGHT, rtol=1e-5, atol=1e-5)

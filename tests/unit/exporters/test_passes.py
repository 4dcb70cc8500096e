"""Rewrites of graphs: what they fold, what they leave alone, and that outputs stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from exporters.passes import PASSES
from exporters.passes.rewriting import apply
from toolkit.core.errors import UnknownNameError

RNG = np.random.default_rng(0)


def tensor(name: str, *shape: int, low: float = -1.0) -> onnx.TensorProto:
    return numpy_helper.from_array(RNG.uniform(low, 1.5, shape).astype(np.float32), name)


def norm(of: str, channels: int) -> list[onnx.TensorProto]:
    return [tensor(f"{of}.{part}", channels, low=0.5 if part in "sv" else -1.0) for part in "sbmv"]


def graph(
    nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto], channels: int = 3
) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", channels, 6, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def run(model: onnx.ModelProto) -> np.ndarray:
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 3, 6, 5)).astype(np.float32)}
    (found,) = ReferenceEvaluator(model).run(None, feeds)
    return found


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def passed(model: onnx.ModelProto, place: Path, *names: str) -> onnx.ModelProto:
    path = place / "model.onnx"
    onnx.save(model, path)
    apply(names, path)
    after = onnx.load(path)
    onnx.checker.check_model(after, full_check=True)
    np.testing.assert_allclose(run(after), run(model), rtol=1e-5, atol=1e-5)
    assert [value.name for value in after.graph.output] == ["y"]
    return after


@pytest.mark.parametrize("biased", [True, False])
def test_a_batch_norm_goes_into_the_convolution(tmp_path: Path, biased: bool) -> None:
    inputs = ["x", "w", "c"] if biased else ["x", "w"]
    nodes = [
        helper.make_node("Conv", inputs, ["h"], pads=[1, 1, 1, 1]),
        helper.make_node(
            "BatchNormalization", ["h", *(f"n.{p}" for p in "sbmv")], ["y"], epsilon=0.1
        ),
    ]
    tensors = [tensor("w", 4, 3, 3, 3), *([tensor("c", 4)] if biased else []), *norm("n", 4)]
    after = passed(graph(nodes, tensors), tmp_path, "fold-batch-norm")
    assert kinds(after) == ["Conv"]
    assert len(after.graph.initializer) == 2


def test_a_convolution_that_is_applied_twice_shares_what_is_folded(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["h", *(f"n.{p}" for p in "sbmv")], ["k"]),
        helper.make_node("Relu", ["k"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["l"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["l", *(f"n.{p}" for p in "sbmv")], ["y"]),
    ]
    after = passed(
        graph(nodes, [tensor("w", 3, 3, 3, 3), *norm("n", 3)]), tmp_path, "fold-batch-norm"
    )
    assert kinds(after) == ["Conv", "Relu", "Conv"]
    assert len(after.graph.initializer) == 2


def test_a_convolution_that_somebody_else_reads_stays(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("BatchNormalization", ["h", *(f"n.{p}" for p in "sbmv")], ["k"]),
        helper.make_node("Add", ["h", "k"], ["y"]),
    ]
    after = passed(
        graph(nodes, [tensor("w", 4, 3, 3, 3), *norm("n", 4)]), tmp_path, "fold-batch-norm"
    )
    assert kinds(after) == ["Conv", "BatchNormalization", "Add"]


def timed(time: float, pads: list[int] | None = None, **attributes: object) -> onnx.ModelProto:
    """conv([x, t]) with t as an exporter writes it."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Mul", ["s", "keep"], ["masked"]),
        helper.make_node("Add", ["masked", "one"], ["clock_shape"]),
        helper.make_node("Expand", ["t", "clock_shape"], ["clock"]),
        helper.make_node("Concat", ["x", "clock"], ["both"], axis=1),
        helper.make_node(
            "Conv", ["both", "w", "c"], ["y"], pads=pads or [1, 1, 1, 1], **attributes
        ),
    ]
    tensors = [
        numpy_helper.from_array(np.int64([1, 0, 1, 1]), "keep"),
        numpy_helper.from_array(np.int64([0, 1, 0, 0]), "one"),
        numpy_helper.from_array(np.float32([time]), "t"),
        tensor("w", 4, 4, 3, 3),
        tensor("c", 4),
    ]
    return graph(nodes, tensors)


@pytest.mark.parametrize("time", [0.0, 0.25, -3.0])
@pytest.mark.parametrize(
    "attributes", [{}, {"pads": [0, 0, 0, 0]}, {"pads": [2, 0, 1, 1], "strides": [2, 1]}], ids=str
)
def test_a_channel_of_one_number_becomes_a_map(tmp_path: Path, time: float, attributes) -> None:
    after = passed(timed(time, **attributes), tmp_path, "fold-time-channel")
    assert kinds(after) == (["Conv", "Add"] if time else ["Conv"])


def test_a_channel_that_varies_stays(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Concat", ["x", "x"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "w"], ["y"]),
    ]
    model = graph(nodes, [tensor("w", 4, 6, 3, 3)])
    assert kinds(passed(model, tmp_path, "fold-time-channel")) == ["Concat", "Conv"]


def test_simplify_removes_what_does_nothing(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    assert kinds(passed(graph(nodes, []), tmp_path, "simplify")) == ["Relu"]


def test_it_says_what_each_pass_changed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(timed(0.5), path)
    first, second = apply(["fold-batch-norm", "fold-time-channel"], path)
    assert first == {"pass": "fold-batch-norm", "changed": False, "operators": {}}
    assert second["changed"] is True
    assert second["operators"]["Concat"] == [1, 0]


def test_an_unknown_pass_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(timed(0.5), path)
    before = path.read_bytes()
    with pytest.raises(UnknownNameError, match="fold-batch-norm"):
        apply(["fold-batchnorm"], path)
    assert path.read_bytes() == before
    assert set(PASSES.names()) == {"fold-batch-norm", "fold-time-channel", "simplify"}

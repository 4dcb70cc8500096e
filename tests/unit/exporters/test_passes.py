"""Rewrites of graphs: what they fold, what they leave alone, and that outputs stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from exporters.passes import PASSES
from exporters.passes.rewriting import apply, parse
from exporters.passes.static_batch import StaticBatch
from toolkit.core.errors import SourceError, UnknownNameError, UsageError

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


def test_simplify_raises_an_old_opset(tmp_path: Path) -> None:
    """What it makes of the sequence has axes as inputs, which opset 11 does not have."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("SequenceConstruct", ["r", "x"], ["s"]),
        helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0, new_axis=1),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 5])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, "N", 3, 6, 5])],
        ),
        opset_imports=[helper.make_opsetid("", 11)],
        ir_version=6,
    )
    after = passed(model, tmp_path, "simplify")
    assert after.opset_import[0].version >= 13
    assert "SequenceConstruct" not in kinds(after)


def test_a_pass_that_fails_on_a_graph_is_a_source_error(tmp_path: Path) -> None:
    """onnxscript's optimizer expects the shape of a split to be known."""
    nodes = [
        helper.make_node("SplitToSequence", ["x", "k"], ["s"], axis=1),
        helper.make_node("SequenceAt", ["s", "z"], ["y"]),
    ]
    model = graph(
        [helper.make_node("Relu", ["x"], ["y"])], [numpy_helper.from_array(np.int64(0), "z")]
    )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.input.append(helper.make_tensor_value_info("k", TensorProto.INT64, []))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    before = path.read_bytes()
    with pytest.raises(SourceError, match=r"simplify cannot be applied to model\.onnx"):
        apply(["simplify"], path)
    assert path.read_bytes() == before


def test_simplify_removes_what_does_nothing(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    assert kinds(passed(graph(nodes, []), tmp_path, "simplify")) == ["Relu"]


def test_what_only_rearranges_a_weight_is_stored(tmp_path: Path) -> None:
    """A Constant node, a copy and a transposed weight."""
    plain = RNG.standard_normal((5, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Constant", [], ["a"], value=numpy_helper.from_array(plain)),
        helper.make_node("Identity", ["w"], ["b"]),
        helper.make_node("Transpose", ["v"], ["c"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("MatMul", ["h", "b"], ["i"]),
        helper.make_node("MatMul", ["i", "c"], ["y"]),
    ]
    weights = [tensor("w", 4, 4), tensor("v", 3, 4)]
    after = passed(graph(nodes, weights), tmp_path, "store-constants")
    assert kinds(after) == ["MatMul"] * 3
    held = {t.name: numpy_helper.to_array(t).tobytes() for t in after.graph.initializer}
    assert {held[node.input[1]] for node in after.graph.node} == {
        plain.tobytes(),
        numpy_helper.to_array(weights[0]).tobytes(),
        np.ascontiguousarray(numpy_helper.to_array(weights[1]).T).tobytes(),
    }


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
    assert set(PASSES.names()) == {
        "bfloat16",
        "float16",
        "fold-batch-norm",
        "fold-time-channel",
        "simplify",
        "static-batch",
        "store-constants",
    }


@pytest.mark.parametrize(
    "text",
    ["static-batch=0", "static-batch=", "static-batch=2.5", "static-batch=two", "simplify=1",
     "float16=", "static-batch=-1"],
)  # fmt: skip
def test_a_number_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(["simplify", text])


def test_a_number_is_taken_or_the_default() -> None:
    (_, default), (_, given) = parse(["static-batch", "static-batch=16"])
    assert isinstance(default, StaticBatch)
    assert isinstance(given, StaticBatch)
    assert (default.number, given.number) == (1, 16)


def reshaped(*, name: str | None = "N", output: str | None = "N") -> onnx.ModelProto:
    """A reshape by the batch, as exporters write it, beside weights that could be folded."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["rows"]),
        helper.make_node("Transpose", ["w"], ["turned"]),
        helper.make_node("Mul", ["turned", "w2"], ["kernel"]),
        helper.make_node("MatMul", ["rows", "kernel"], ["y"]),
    ]
    tensors = [
        numpy_helper.from_array(np.int64([0]), "zero"),
        numpy_helper.from_array(np.int64([90]), "rest"),
        tensor("w", 4, 90),
        tensor("w2", 90, 4),
    ]
    model = graph(nodes, tensors)
    for value, extent in ((model.graph.input[0], name), (model.graph.output[0], output)):
        axis = value.type.tensor_type.shape.dim[0]
        axis.Clear()
        if extent is not None:
            axis.dim_param = extent
    return model


def extents_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize(
    ("name", "output"), [("N", "N"), ("batch-size", "2*batch-size"), (None, None), ("N", None)]
)
def test_a_fixed_batch_leaves_no_arithmetic_on_shapes(
    tmp_path: Path, name: str | None, output: str | None
) -> None:
    after = passed(reshaped(name=name, output=output), tmp_path, "static-batch=2")
    assert kinds(after) == ["Reshape", "Transpose", "Mul", "MatMul"]
    assert extents_of(after.graph.input[0]) == [2, 3, 6, 5]
    assert extents_of(after.graph.output[0])[1:] == [4]
    if output in (None, name):
        assert extents_of(after.graph.output[0]) == [2, 4]
    assert {"w", "w2"} <= {tensor.name for tensor in after.graph.initializer}
    inner = [extents_of(value) for value in after.graph.value_info]
    assert not any(name in extents for extents in inner)


def test_extents_that_are_multiples_of_the_batch_are_numbers_too(tmp_path: Path) -> None:
    nodes = [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)]
    model = graph(nodes, [])
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "2*N"
    after = passed(model, tmp_path, "static-batch=2")
    assert extents_of(after.graph.output[0])[0] == 4


def test_extents_that_cannot_be_inferred_are_numbers_too(tmp_path: Path) -> None:
    made = helper.make_graph(
        [helper.make_node("Theirs", ["x"], ["y"], domain="theirs")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["2*N", "N", "no name", "M"])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("theirs", 1)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=10), path)
    apply(["static-batch=3"], path)
    assert extents_of(onnx.load(path).graph.output[0]) == [6, 3, "no name", "M"]


def test_a_batch_that_is_another_number_already_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(reshaped(), path)
    apply(["static-batch=2"], path)
    before = path.read_bytes()
    (change,) = apply(["static-batch=2"], path)
    assert change == {"pass": "static-batch=2", "changed": False, "operators": {}}
    with pytest.raises(SourceError, match="its batch is 2 already"):
        apply(["static-batch=4"], path)
    assert onnx.load(path) == onnx.load_from_string(before)


def test_a_time_channel_of_a_fixed_batch_is_still_found(tmp_path: Path) -> None:
    """Nothing that is data is made a constant of the batch's size."""
    after = passed(timed(0.5), tmp_path, "static-batch=2")
    assert kinds(after) == ["Expand", "Concat", "Conv"]
    after = passed(timed(0.5), tmp_path, "static-batch=2", "fold-time-channel")
    assert kinds(after) == ["Conv", "Add"]

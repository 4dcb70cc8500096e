"""INT8 graphs from given ranges, small enough to inspect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from calibration.base import Range
from calibration.presets import PRESETS, Recipe, recipe_for
from calibration.qdq import check_nodes, quantise
from exporters.onnx.reader import read_precision, stored_tensors
from exporters.proof.weight_parity import Match, compare
from toolkit.core.artifact import Format
from toolkit.core.errors import SourceError, UnknownNameError, UsageError

RANGES = {name: Range(low=-8.0, high=8.0) for name in "xay"} | {"b": Range(low=0.0, high=8.0)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two convolutions that share a kernel and a bias; the second has no name."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((4, 4, 1, 1)).astype(np.float32) / 2
    bias = rng.standard_normal(4).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "kernel", "bias"], ["y"]),
    ]
    given, made = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 4, 2, 2])
        for name in "xy"
    )
    graph = helper.make_graph(
        nodes,
        "graph",
        [given],
        [made],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(bias, "bias")],
    )
    path = tmp_path / "float.onnx"
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def quantised(source: Path, recipe: Recipe, excluded: tuple[str, ...] = ()) -> onnx.ModelProto:
    target = source.with_name("int8.onnx")
    check_nodes(source, excluded)
    quantise(source, target, RANGES, recipe, excluded)
    made = onnx.load(target)
    onnx.checker.check_model(made, full_check=True)
    return made


def run(path: Path, x: np.ndarray) -> np.ndarray:
    """As it is written: kernels of 8 bits saturate on a processor without VNNI."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("name", [n for n, one in PRESETS.items() if one.takes is Format.ONNX])
@pytest.mark.parametrize("vnni", [True, False])
def test_each_preset_keeps_the_model(name: str, vnni: bool, source: Path) -> None:
    quantised(source, recipe_for(name, symmetric=None, per_channel=None, vnni=vnni))
    target = source.with_name("int8.onnx")
    x = np.random.default_rng(1).uniform(-4, 4, (8, 4, 2, 2)).astype(np.float32)
    expected = run(source, x)
    assert np.abs(run(target, x) - expected).max() < 0.05 * np.abs(expected).max()
    assert read_precision(target) == "int8"
    weights = {t.name: t.array for t in stored_tensors(source)}
    found = compare(weights, stored_tensors(target))
    assert found.passed, found.failures()
    matches = {tensor.name: tensor.match for tensor in found.tensors}
    in_float = PRESETS[name].recipe.weights_in_float
    assert matches["kernel"] is (Match.IDENTICAL if in_float else Match.QUANTISED)


def test_a_bias_that_is_not_quantised_is_stored_once(source: Path) -> None:
    made = quantised(source, Recipe(symmetric=True, biases=False))
    assert sum(tensor.name.startswith("bias") for tensor in made.graph.initializer) == 1


@pytest.mark.parametrize(("symmetric", "dtype"), [(True, "int8"), (False, "uint8")])
def test_activations_are_of_the_dtype_and_zero_point(
    symmetric: bool, dtype: str, source: Path
) -> None:
    made = quantised(source, Recipe(symmetric=symmetric))
    held = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    zeros = [held[node.input[2]] for node in made.graph.node if node.op_type == "QuantizeLinear"]
    assert {str(zero.dtype) for zero in zeros} == {dtype}
    if symmetric:
        assert not any(zero.any() for zero in zeros)


@pytest.mark.parametrize("per_channel", [True, False])
def test_scales_of_weights(per_channel: bool, source: Path) -> None:
    made = quantised(source, Recipe(symmetric=False, per_channel=per_channel))
    held = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    scale = held["kernel_scale"]
    assert scale.size == (4 if per_channel else 1)
    kernel = numpy_helper.to_array(onnx.load(source).graph.initializer[0])
    axis = (1, 2, 3) if per_channel else None
    assert scale == pytest.approx(np.abs(kernel).max(axis=axis) / 127, rel=1e-5)


def test_reduced_weights_have_seven_bits(source: Path) -> None:
    made = quantised(source, Recipe(symmetric=False, reduced=True))
    held = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    assert np.abs(held["kernel_quantized"]).max() <= 64


def test_an_excluded_node_gives_what_it_computes(source: Path) -> None:
    def maker_of_y(made: onnx.ModelProto) -> str:
        return next(node.op_type for node in made.graph.node if "y" in node.output)

    recipe = Recipe(symmetric=False)
    assert maker_of_y(quantised(source, recipe)) == "DequantizeLinear"
    assert maker_of_y(quantised(source, recipe, ("node_of_y",))) == "Conv"


def test_an_unknown_node_names_the_nearest(source: Path) -> None:
    with pytest.raises(UnknownNameError) as caught:
        check_nodes(source, ["frist"])
    assert "Did you mean 'first'?" in caught.value.hint


def test_nothing_to_quantise_is_refused(source: Path) -> None:
    with pytest.raises(SourceError, match="nothing that is quantised but what was excluded"):
        quantised(source, Recipe(symmetric=False), ("first", "relu", "node_of_y"))


def test_an_old_graph_is_refused(source: Path) -> None:
    model = onnx.load(source)
    model.opset_import[0].version = 11
    onnx.save(model, source)
    with pytest.raises(SourceError, match="opset 11, expected 13 or more"):
        check_nodes(source, [])


def test_presets_refuse_what_their_runtime_does_not_take() -> None:
    with pytest.raises(UsageError, match="takes no zero point"):
        recipe_for("tensorrt", symmetric=False, per_channel=None, vnni=True)
    with pytest.raises(UnknownNameError, match="no preset"):
        recipe_for("openvin", symmetric=None, per_channel=None, vnni=True)
    assert recipe_for("onnxruntime", symmetric=True, per_channel=False, vnni=False) == Recipe(
        symmetric=True, per_channel=False, reduced=True
    )


def test_a_weight_of_other_values_is_not_found_in_the_numbers(source: Path) -> None:
    quantised(source, Recipe(symmetric=False))
    weights = {t.name: t.array for t in stored_tensors(source)}
    step = np.abs(weights["kernel"]).max() / 127
    weights["kernel"] = weights["kernel"] + 2 * step
    found = compare(weights, stored_tensors(source.with_name("int8.onnx")))
    assert found.failures()[0].name == "kernel"

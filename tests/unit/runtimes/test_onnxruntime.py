"""What ONNX Runtime says that it ran, on models that make it choose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from runtimes.onnxruntime.cpu import OnnxRuntime
from runtimes.openvino import OpenVino
from toolkit.core.session import Provenance, Runtime, SessionOptions
from toolkit.sources.resolve import open_artifact

RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((64, 32)).astype(np.float32)
BIAS = RNG.standard_normal(32).astype(np.float32)


def save(path: Path, dtype: type = np.float32, *, name: str = "dense") -> Path:
    """y = relu(x w + b), with x [batch, 64]."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"], name=name),
        helper.make_node("Add", ["t", "b"], ["u"], name="bias"),
        helper.make_node("Relu", ["u"], ["y"], name="activation"),
    ]
    x = helper.make_tensor_value_info("x", kind, ["batch", 64])
    y = helper.make_tensor_value_info("y", kind, ["batch", 32])
    constants = [
        numpy_helper.from_array(WEIGHTS.astype(dtype), "w"),
        numpy_helper.from_array(BIAS.astype(dtype), "b"),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=opsets), path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def ran(path: Path, runtime: Runtime | None = None, **options: Any) -> Provenance:
    artifact = open_artifact(path)
    (spec,) = artifact.signature.inputs
    x = RNG.standard_normal((3, 64)).astype(spec.dtype)
    runtime = runtime or OnnxRuntime()
    with runtime.open(artifact, SessionOptions(threads=2, **options)) as session:
        session.run({"x": x})
        return session.provenance()


def operators(found: Provenance) -> list[str]:
    return [node["operator"] for node in found.details["nodes"]]


def test_nodes_are_those_after_its_own_fusions(model: Path) -> None:
    save(model)
    assert operators(ran(model, optimize=False)) == ["MatMul", "Add", "Relu"]
    fused = ran(model)
    assert operators(fused) == ["FusedGemm"]
    assert fused.details["nodes_by_provider"] == {"CPUExecutionProvider": 1}
    assert (fused.precision, fused.device) == ("float32", "cpu")


def test_the_recorded_session_gives_the_outputs_of_the_timed_one(model: Path) -> None:
    assert ran(save(model)).details["recorded_outputs_identical"] is True


def test_a_session_with_random_outputs_is_not_called_identical(model: Path) -> None:
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])
    nodes = [
        helper.make_node("RandomUniformLike", ["x"], ["r"]),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=opsets), model)
    found = ran(model)
    assert found.details["recorded_outputs_identical"] is False
    assert "Add" in operators(found)


def test_an_output_of_another_rank_than_declared_comes_out_of_every_pass(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    shape = helper.make_tensor_value_info("shape", TensorProto.INT64, [3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "m"])
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])], "g", [x, shape], [y]
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=opsets), tmp_path / "m.onnx")
    with OnnxRuntime().open(open_artifact(tmp_path / "m.onnx"), SessionOptions()) as session:
        for wanted in ((2, 3, 4), (2, 3, 4), (3, 4, 2)):
            feeds = {"x": np.arange(24, dtype=np.float32), "shape": np.array(wanted)}
            assert session.run(feeds)["y"].shape == wanted


def test_float64_and_names_with_quotes(model: Path) -> None:
    found = ran(save(model, np.float64, name='the "dense" one\\'), optimize=False)
    assert found.precision == "float64"
    assert found.details["nodes"][0]["name"] == 'the "dense" one\\'


@pytest.mark.parametrize("runtime", [OnnxRuntime(), OpenVino()], ids=lambda one: one.name)
def test_half_precision_that_is_computed_in_float32_shows(model: Path, runtime: Runtime) -> None:
    """Either it computes in float16, or there are conversions and it says float32."""
    found = ran(save(model, np.float16), runtime)
    converted = not {"Cast", "Convert"}.isdisjoint(operators(found))
    assert found.precision == ("float32" if converted else "float16")


def test_layers_of_eight_bits_show(model: Path, tmp_path: Path) -> None:
    quantize_dynamic(save(model), tmp_path / "int8.onnx")
    found = ran(tmp_path / "int8.onnx")
    dtypes = {node["operator"]: node["dtype"] for node in found.details["nodes"]}
    assert dtypes["DynamicQuantizeMatMul"] == "int8"
    assert dtypes["Relu"] == "float32"
    assert found.precision == "mixed"


def test_layers_of_eight_bits_that_openvino_runs_in_float32_show(
    model: Path, tmp_path: Path
) -> None:
    quantize_dynamic(save(model), tmp_path / "int8.onnx")
    found = ran(tmp_path / "int8.onnx", OpenVino())
    assert {"FullyConnected", "MatMul"} & set(operators(found))
    assert found.precision == "float32"


def test_nothing_is_left_on_the_disk(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    ran(save(model))
    assert list(place.iterdir()) == []

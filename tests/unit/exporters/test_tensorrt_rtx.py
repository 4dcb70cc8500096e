"""Engines of TensorRT-RTX: built without a GPU, refused with its words, proved by the network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.base import Exported, ExportOptions
from exporters.proof.weight_parity import Match, compare
from exporters.tensorrt.engine import profile_of
from exporters.tensorrt.network import Parsed, stored_tensors
from exporters.tensorrt.network import parse as parsed_by
from exporters.tensorrt.rtx import LIBRARY, TensorRtRtx, TensorRtRtxTensors
from toolkit.core.engines import ENGINE, GRAPH, EngineRecord
from toolkit.core.errors import SourceError, UnknownNameError, UsageError
from toolkit.sources.resolve import open_artifact

RNG = np.random.default_rng(0)
W = RNG.standard_normal((8, 8)).astype(np.float32)
V = RNG.standard_normal((8, 8)).astype(np.float32)
ADA = ExportOptions(compute_capabilities=(89,))
PRODUCT = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
Nodes = Sequence[onnx.NodeProto]
Shape = Sequence[int | str | None]


def tensor(name: str, shape: Shape, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def saved(
    place: Path,
    nodes: Nodes = (PRODUCT,),
    weights: Mapping[str, np.ndarray] | None = None,
    takes: Shape = ("N", 8),
    gives: Shape = ("N", 8),
    dtype: int = TensorProto.FLOAT,
    domain: str | None = None,
) -> Path:
    """An ONNX file that takes `x` and gives `y`."""
    constants = [numpy_helper.from_array(a, n) for n, a in (weights or {"w": W}).items()]
    graph = helper.make_graph(
        nodes, "graph", [tensor("x", takes, dtype)], [tensor("y", gives, dtype)], constants
    )
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), place / "given.onnx")
    return place / "given.onnx"


def parse(path: Path) -> Parsed:
    return parsed_by(LIBRARY, path)


def exported(path: Path, options: ExportOptions = ADA) -> Exported:
    out = path.parent / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    return TensorRtRtx().export(open_artifact(path), out, options)


def test_an_engine_is_written_with_the_graph_that_it_was_built_from(tmp_path: Path) -> None:
    path = saved(tmp_path)
    done = exported(path)
    out = tmp_path / "out"
    assert done.entry == ENGINE
    assert done.precision == "float32"
    assert (out / ENGINE).read_bytes().startswith(b"vtrt")
    assert (out / GRAPH).read_bytes() == path.read_bytes()
    assert done.options["compute_capabilities"] == [89]
    assert done.options["batches"] == (1, 8, 64)
    record = EngineRecord.load(out)
    assert (record.library, record.version) == ("tensorrt-rtx", LIBRARY.trt.__version__)
    assert (record.compute_capabilities, record.batches) == ((89,), (1, 8, 64))
    assert (record.gpu, record.tf32) == (None, False)
    assert set(record.files) == {ENGINE, GRAPH}
    first = (out / ENGINE).read_bytes()
    exported(path)
    assert (out / ENGINE).read_bytes() == first


def test_the_weights_lie_in_the_engine_bit_for_bit(tmp_path: Path) -> None:
    """It does not give them back, but its file has them: a kernel with its channels last."""
    weights = {
        "k": RNG.standard_normal((8, 4, 3, 3)).astype(np.float32),
        "b": RNG.standard_normal(8).astype(np.float32),
        "w": W,
    }
    nodes = [
        helper.make_node("Conv", ["x", "k", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    exported(saved(tmp_path, nodes, weights, ("N", 4, 10, 10), ("N", 8, 8, 8)))
    engine = (tmp_path / "out" / ENGINE).read_bytes()
    assert np.ascontiguousarray(weights["k"].transpose(0, 2, 3, 1)).tobytes() in engine
    assert weights["b"].tobytes() in engine
    assert weights["w"].tobytes() in engine


def test_what_the_parser_does_not_know_is_named(tmp_path: Path) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"], name="frob", domain="nobody.example")
    with pytest.raises(SourceError, match=r"'frob' \(Frobnicate\).*Plugin not found"):
        exported(saved(tmp_path, [node], domain="nobody.example"))


@pytest.mark.parametrize("content", [b"xx", b"", b"this is a text file\n"])
def test_what_is_no_graph_is_refused_though_the_parser_takes_it(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(SourceError, match=r"not a valid ONNX model|could not parse"):
        parse(tmp_path / "x.onnx")


def test_a_graph_that_is_not_valid_never_reaches_the_parser(tmp_path: Path) -> None:
    path = saved(tmp_path)
    model = onnx.load(path)
    model.graph.node[0].input[0] = "y"
    onnx.save(model, path)
    with pytest.raises(SourceError, match="not a valid ONNX model"):
        parse(path)


def test_an_unknown_compute_capability_lists_those_known(tmp_path: Path) -> None:
    options = ExportOptions(compute_capabilities=(88, 89))
    with pytest.raises(UsageError, match="compute capability 88") as caught:
        exported(saved(tmp_path), options)
    assert "75, 80, 86, 89, 120, 121" in caught.value.hint


def test_no_engine_is_an_error_with_the_builder_s_words(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="FP32 GEMM is not supported"):
        exported(saved(tmp_path), ExportOptions(compute_capabilities=(75,)))
    assert not (tmp_path / "out" / ENGINE).exists()


def test_the_batches_are_those_of_the_profile(tmp_path: Path) -> None:
    path = saved(tmp_path)
    wanted = ((2, 8), (4, 8), (16, 8))
    shapes = profile_of(parse(path), {"x": wanted}).get_shape("x")
    assert tuple(map(tuple, shapes)) == wanted
    exported(path)
    usual = (tmp_path / "out" / ENGINE).read_bytes()
    done = exported(path, ExportOptions(compute_capabilities=(89,), batches=(2, 4, 16)))
    assert done.options["batches"] == (2, 4, 16)
    assert done.options["profiles"] == {"x": wanted}
    assert (tmp_path / "out" / ENGINE).read_bytes() != usual


PROFILE = ((1, 4, 8), (2, 16, 8), (4, 64, 8))


@pytest.mark.parametrize("shape", [("N", "time", 8), (None, None, 8)])
def test_a_profile_has_ranges_of_any_axes(tmp_path: Path, shape: Shape) -> None:
    options = ExportOptions(compute_capabilities=(89,), profiles={"x": PROFILE})
    done = exported(saved(tmp_path, takes=shape, gives=shape), options)
    assert done.options["profiles"] == {"x": PROFILE}
    assert done.options["batches"] == (1, 2, 4)
    assert (tmp_path / "out" / ENGINE).read_bytes().startswith(b"vtrt")


@pytest.mark.parametrize(
    "profile",
    [((1, 8), (2, 8), (4, 8)), ((1, 4, 7), (2, 16, 7), (4, 64, 7))],
    ids=["rank", "fixed extent"],
)
def test_a_profile_that_does_not_fit_is_refused(tmp_path: Path, profile: tuple) -> None:
    path = saved(tmp_path, takes=("N", "time", 8), gives=("N", "time", 8))
    with pytest.raises(UsageError, match="which it does not fit"):
        exported(path, ExportOptions(compute_capabilities=(89,), profiles={"x": profile}))


def test_a_profile_is_of_an_input(tmp_path: Path) -> None:
    options = ExportOptions(compute_capabilities=(89,), profiles={"z": PROFILE})
    with pytest.raises(UnknownNameError, match="'z'"):
        exported(saved(tmp_path, takes=("N", "time", 8), gives=("N", "time", 8)), options)


@pytest.mark.parametrize(
    "profile", [(), ((1, 2),), ((1, 2), (1,), (1, 2)), ((2, 2), (1, 2), (3, 2)), ((0,), (1,), (2,))]
)
def test_shapes_that_are_no_profile_are_refused(profile: tuple) -> None:
    with pytest.raises(UsageError, match="the least, the usual and the largest shape"):
        ExportOptions(profiles={"x": profile})


@pytest.mark.parametrize("batches", [(8, 1, 64), (0, 1, 2), (1, 8), ()])
def test_batches_that_are_no_range_are_refused(batches: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="expected three"):
        ExportOptions(batches=batches)


def test_a_fixed_batch_needs_none(tmp_path: Path) -> None:
    path = saved(tmp_path, takes=(4, 8), gives=(4, 8))
    assert exported(path).options["batches"] is None
    with pytest.raises(UsageError, match="one batch only"):
        exported(path, ExportOptions(batches=(1, 2, 3)))


@pytest.mark.parametrize("shape", [("N", "time", 8), (2, "time", 8), ("N", None, 8)])
def test_another_axis_without_an_extent_is_refused(tmp_path: Path, shape: Shape) -> None:
    with pytest.raises(SourceError, match="another dynamic axis than the batch") as caught:
        exported(saved(tmp_path, takes=shape, gives=shape))
    assert "--profile x=" in caught.value.hint


def test_a_dtype_that_would_become_another_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, weights={"w": W.astype(np.float64)}, dtype=TensorProto.DOUBLE)
    with pytest.raises(SourceError, match="'x' is float32, expected float64"):
        exported(path)


def test_weights_that_cannot_be_read_back_are_refused(tmp_path: Path) -> None:
    bfloat16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    path = saved(tmp_path, weights={"w": W.astype(bfloat16)}, dtype=TensorProto.BFLOAT16)
    with pytest.raises(SourceError, match="BF16"):
        stored_tensors(parse(path))


def test_float16_stays_what_it_is(tmp_path: Path) -> None:
    weight = W.astype(np.float16)
    path = saved(tmp_path, weights={"w": weight}, dtype=TensorProto.FLOAT16)
    assert compare({"w": weight}, stored_tensors(parse(path))).passed
    assert exported(path).precision == "float16"


CONVOLUTIONS = {
    "grouped": ("Conv", (6, 2, 3, 3), {"group": 2}, ("N", 4, 9, 9), ("N", 6, 7, 7)),
    "of one axis": ("Conv", (6, 4, 3), {}, ("N", 4, 9), ("N", 6, 7)),
    "of three": ("Conv", (6, 4, 3, 3, 3), {}, ("N", 4, 9, 9, 9), ("N", 6, 7, 7, 7)),
    "transposed": ("ConvTranspose", (4, 6, 2, 2), {}, ("N", 4, 9, 9), ("N", 6, 10, 10)),
    "transposed, grouped": (
        "ConvTranspose", (4, 3, 2, 2), {"group": 2}, ("N", 4, 9, 9), ("N", 6, 10, 10)
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_kernels_have_the_shape_of_the_model(tmp_path: Path, kind: str) -> None:
    operator, shape, attributes, takes, gives = CONVOLUTIONS[kind]
    weights = {
        "w": RNG.standard_normal(shape).astype(np.float32),
        "b": RNG.standard_normal(6).astype(np.float32),
    }
    node = helper.make_node(operator, ["x", "w", "b"], ["y"], **attributes)
    path = saved(tmp_path, [node], weights, takes, gives)
    parity = compare(weights, stored_tensors(parse(path)))
    assert parity.passed
    assert parity.tensors[0].match in (Match.IDENTICAL, Match.RESHAPED)


def test_what_only_dead_layers_read_is_unused(tmp_path: Path) -> None:
    nodes = [PRODUCT, helper.make_node("MatMul", ["x", "v"], ["z"], name="dead")]
    parity = compare(
        {"w": W, "v": V}, stored_tensors(parse(saved(tmp_path, nodes, {"w": W, "v": V})))
    )
    assert {t.name: t.match for t in parity.tensors} == {"w": Match.IDENTICAL, "v": Match.UNUSED}


def test_a_tensor_that_is_read_twice_has_two_readers(tmp_path: Path) -> None:
    kernel = RNG.standard_normal((8, 8, 1, 1)).astype(np.float32)
    norm = dict(zip(("s", "b", "m", "v"), (*RNG.standard_normal((3, 8)), np.ones(8)), strict=True))
    norm = {name: array.astype(np.float32) for name, array in norm.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["c"], name="norm1"),
        helper.make_node("Conv", ["c", "w"], ["d"], name="second"),
        helper.make_node("BatchNormalization", ["d", "s", "b", "m", "v"], ["y"], name="norm2"),
    ]
    shape = ("N", 8, 4, 4)
    found = stored_tensors(parse(saved(tmp_path, nodes, {"w": kernel, **norm}, shape, shape)))
    assert {tensor.name: len(tensor.readers) for tensor in found} == {
        "w": 2,
        "s.scale": 2,
        "b.shift": 2,
    }


def test_axes_of_the_parser_s_own_are_no_weights(tmp_path: Path) -> None:
    """It writes int32 where ONNX has int64."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["p"]),
        helper.make_node("Squeeze", ["p", "axes"], ["y"]),
    ]
    weights = {"w": W, "axes": np.array([2, 3])}
    path = saved(tmp_path, nodes, weights, ("N", 3, 5, 8), ("N", 3))
    assert compare({"w": W}, stored_tensors(parse(path))).passed


def test_a_quantised_graph_keeps_its_whole_numbers(tmp_path: Path) -> None:
    weights = {
        "w": RNG.integers(-127, 127, (8, 4, 3, 3)).astype(np.int8),
        "steps": np.linspace(0.1, 0.2, 8).astype(np.float32),
        "zeros": np.zeros(8, np.int8),
    }
    scalars = {"step": np.array(0.1, np.float32), "zero": np.array(0, np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "steps", "zeros"], ["k"], axis=0),
        helper.make_node("Conv", ["a", "k"], ["y"]),
    ]
    path = saved(tmp_path, nodes, {**weights, **scalars}, ("N", 4, 9, 9), ("N", 8, 7, 7))
    parity = compare(weights, stored_tensors(parse(path)))
    assert parity.passed
    assert parity.count(Match.IDENTICAL) == 3
    assert exported(path).precision == "int8"


def test_an_engine_of_another_graph_is_refused(tmp_path: Path) -> None:
    exported(saved(tmp_path))
    engine = tmp_path / "out" / ENGINE
    assert TensorRtRtxTensors().stored_tensors(engine)
    assert TensorRtRtxTensors().operators(engine) == {"MATRIX_MULTIPLY": 1}
    kept = engine.read_bytes()
    shutil.copy(saved(tmp_path, weights={"w": V}), tmp_path / "out" / GRAPH)
    with pytest.raises(SourceError, match="do not belong to each other"):
        TensorRtRtxTensors().stored_tensors(engine)
    exported(tmp_path / "given.onnx")
    assert engine.read_bytes() != kept
    engine.write_bytes(kept)
    with pytest.raises(SourceError, match=r"model\.engine .* do not belong to each other"):
        TensorRtRtxTensors().stored_tensors(engine)
    (tmp_path / "out" / GRAPH).unlink()
    with pytest.raises(SourceError, match="could not be read"):
        TensorRtRtxTensors().operators(engine)


def test_an_engine_of_somebody_else_s_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "theirs.engine").write_bytes(b"ptrt" + bytes(100))
    with pytest.raises(SourceError, match="can be read without the GPU"):
        open_artifact(tmp_path / "theirs.engine")


def test_external_data_comes_along(tmp_path: Path) -> None:
    path = saved(tmp_path)
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="data.bin", size_threshold=0)
    exported(path)
    assert (tmp_path / "out" / "data.bin").read_bytes() == (tmp_path / "data.bin").read_bytes()
    engine = tmp_path / "out" / ENGINE
    assert compare({"w": W}, TensorRtRtxTensors().stored_tensors(engine)).passed
    (tmp_path / "out" / "data.bin").write_bytes(V.tobytes())
    with pytest.raises(SourceError, match=r"data\.bin"):
        TensorRtRtxTensors().stored_tensors(engine)


def test_without_the_package_its_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['tensorrt_rtx'] = None\n"
        "from exporters import EXPORTERS, READERS\n"
        "from toolkit.core.errors import UnavailableError\n"
        "for make in (EXPORTERS, READERS):\n"
        "    try: make.create('tensorrt-rtx')\n"
        "    except UnavailableError as error: print(error.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    hint = "Install what it needs: pip install 'inference-toolkit[rtx]'\n"
    assert done.stdout == hint * 2

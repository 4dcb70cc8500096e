"""Matrix products and convolutions against what torch itself counts of them."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    quantize_dynamic,
    quantize_static,
)
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from exporters.analysis.operation_counts import count_work
from models import FAMILIES, build
from tests.unit.exporters.onnx_models import Shapes, save


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def flops(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> int:
    """What torch counts. Fused attention, and oneDNN's recurrences, are not in its table: attention
    is taken in parts, and in float64 there is no oneDNN."""
    double = copy.deepcopy(module).double()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        double(*(tensor.double() for tensor in inputs))
    return counter.get_total_flops()


def exported(path: Path, module: nn.Module, inputs: tuple[torch.Tensor, ...], opset: int) -> Shapes:
    """Writes the module as ONNX, and gives the shapes of its inputs."""
    names = [f"x{index}" for index in range(len(inputs))]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), inputs, path, dynamo=True, verbose=False, input_names=names,
            opset_version=opset,
        )  # fmt: skip
    return {name: tuple(tensor.shape) for name, tensor in zip(names, inputs, strict=True)}


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self._function(*inputs)


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def zeros(*shapes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.zeros(shape) for shape in shapes)


MODULES: dict[str, tuple[nn.Module, tuple[torch.Tensor, ...]]] = {
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), zeros((2, 4, 17))),
    "conv2d grouped, dilated": (nn.Conv2d(4, 6, 3, groups=2, dilation=2), zeros((2, 4, 9, 8))),
    "conv2d depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding=1), zeros((3, 4, 5, 5))),
    "conv2d without bias": (nn.Conv2d(3, 5, (1, 3), bias=False), zeros((1, 3, 4, 9))),
    "conv3d": (nn.Conv3d(2, 3, 2, stride=(1, 2, 1)), zeros((2, 2, 4, 6, 5))),
    "conv transpose": (
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        zeros((2, 4, 5, 6)),
    ),
    "linear": (nn.Linear(7, 5), zeros((3, 7))),
    "linear without bias": (nn.Linear(7, 5, bias=False), zeros((3, 7))),
    "linear over time": (nn.Linear(7, 5), zeros((2, 4, 7))),
    "bmm": (Call(torch.bmm), zeros((4, 3, 7), (4, 7, 5))),
    "broadcast matmul": (Call(torch.matmul), zeros((2, 1, 3, 7), (4, 7, 5))),
    "einsum": (
        Call(lambda a, b: torch.einsum("bij,bkj->bik", a, b)),
        zeros((2, 3, 4), (2, 5, 4)),
    ),
    "attention in parts": (nn.MultiheadAttention(8, 2), zeros(*[(2, 5, 8)] * 3)),
    "attention": (
        Call(lambda q, k, v: F.scaled_dot_product_attention(q, k, v)),
        zeros((2, 3, 7, 8), (2, 3, 9, 8), (2, 3, 9, 6)),
    ),
    "lstm": (nn.LSTM(4, 5, bidirectional=True), zeros((7, 2, 4))),
    "gru": (nn.GRU(4, 5), zeros((7, 2, 4))),
}


@pytest.mark.parametrize("name", MODULES)
def test_matrix_operations_are_those_that_torch_counts(path: Path, name: str) -> None:
    module, inputs = MODULES[name]
    shapes = exported(path, module, inputs, opset=23 if name == "attention" else 20)
    assert name != "attention" or "Attention" in operators(path)
    expected = flops(module, inputs)
    assert expected > 0
    work = count_work(path, shapes)
    assert (work.matrix_operations, work.lower_bound) == (expected, False)


@pytest.mark.parametrize("batch", [1, 7, 200])
def test_lenet_at_several_batches(artifact_dir: Path, batch: int) -> None:
    lenet = build(FAMILIES.create("lenet").spec("torch"), "torch")
    shape = (batch, 3, 32, 32)
    work = count_work(artifact_dir / "model.onnx", {"input": shape})
    by_hand = 28 * 28 * 6 * 75 + 10 * 10 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10
    assert work.matrix_operations == flops(lenet, zeros(shape)) == 2 * batch * by_hand


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_convolution(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """1, 2 or 3 dimensions, forward or transposed."""
    small = st.integers(1, 3)
    transposed = data.draw(st.booleans())
    groups = data.draw(small)
    channels, filters = groups * data.draw(small), groups * data.draw(small)
    axes = data.draw(st.integers(1, 3))
    kernel = data.draw(st.lists(small, min_size=axes, max_size=axes))
    stride, dilation, padding = data.draw(small), data.draw(small), data.draw(st.integers(0, 2))
    extents = [dilation * (k - 1) + data.draw(st.integers(1, 6)) for k in kernel]
    if transposed:  # what is cut off at the border must leave something
        extents = [extent + 2 * padding for extent in extents]
    x = (data.draw(small), channels, *extents)
    w = (channels, filters // groups, *kernel) if transposed else (
        filters, channels // groups, *kernel
    )  # fmt: skip
    node = helper.make_node(
        "ConvTranspose" if transposed else "Conv", ["x", "w"], ["y"],
        group=groups, strides=[stride] * axes, dilations=[dilation] * axes,
        pads=[padding] * 2 * axes,
    )  # fmt: skip
    function = getattr(F, f"conv{'_transpose' if transposed else ''}{axes}d")

    def convolve(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return function(a, b, stride=stride, padding=padding, dilation=dilation, groups=groups)

    path = tmp_path_factory.mktemp("any") / "model.onnx"
    save(path, [node], {"x": x, "w": w})
    expected = flops(Call(convolve), zeros(x, w))
    assert count_work(path, {"x": x, "w": w}).matrix_operations == expected


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_product(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Of matrices, with batches that broadcast."""
    extent = st.integers(1, 5)
    rows, inner, columns = data.draw(extent), data.draw(extent), data.draw(extent)
    outer = data.draw(st.lists(extent, max_size=3))
    left = tuple(data.draw(st.sampled_from([1, n])) for n in outer)
    right = tuple(
        n if a == 1 else data.draw(st.sampled_from([1, n]))
        for a, n in zip(left, outer, strict=True)
    )
    shapes = {"a": (*left, rows, inner), "b": (*right, inner, columns)}
    path = tmp_path_factory.mktemp("any") / "model.onnx"
    save(path, [helper.make_node("MatMul", ["a", "b"], ["y"])], shapes)
    expected = flops(Call(torch.matmul), zeros(*shapes.values()))
    assert count_work(path, shapes).matrix_operations == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [((3, 7), (7,), 42), ((7,), (7, 5), 70), ((7,), (7,), 14), ((2, 3, 0), (0, 5), 0)],
)
def test_products_that_torch_does_not_count(path: Path, a: tuple, b: tuple, expected: int) -> None:
    """Those with a vector are in no table of torch's."""
    save(path, [helper.make_node("MatMul", ["a", "b"], ["y"])], {"a": a, "b": b})
    assert count_work(path, {"a": a, "b": b}).matrix_operations == expected


SPECIAL = {
    "Gemm": (
        helper.make_node("Gemm", ["a", "b"], ["y"], transA=1, transB=1),
        {"a": (3, 7), "b": (5, 3)},
        2 * 7 * 3 * 5,
    ),
    "attention with its heads in one axis, and a past": (
        helper.make_node(
            "Attention", ["q", "k", "v", "", "pk", "pv"], ["y", "k1", "v1"],
            q_num_heads=4, kv_num_heads=2,
        ),
        {
            "q": (2, 7, 4 * 8), "k": (2, 5, 2 * 8), "v": (2, 5, 2 * 6),
            "pk": (2, 2, 10, 8), "pv": (2, 2, 10, 6),
        },
        2 * 2 * 4 * 7 * 15 * (8 + 6),
    ),
    "two operands, one of them broadcast": (
        helper.make_node("Einsum", ["a", "b"], ["y"], equation="ij, jk -> ik"),
        {"a": (3, 1), "b": (7, 5)},
        2 * 3 * 7 * 5,
    ),
    "three operands": (
        helper.make_node("Einsum", ["a", "b", "c"], ["y"], equation="ij,jk,kl->il"),
        {"a": (2, 3), "b": (3, 4), "c": (4, 5)},
        None,
    ),
    "an ellipsis": (
        helper.make_node("Einsum", ["a", "b"], ["y"], equation="...ij,jk->...ik"),
        {"a": (2, 3, 4), "b": (4, 5)},
        None,
    ),
    "sequences of several lengths": (
        helper.make_node("RNN", ["x", "w", "r", "", "lengths"], ["y"], hidden_size=5),
        {"x": (7, 2, 4), "w": (1, 5, 4), "r": (1, 5, 5), "lengths": (2,)},
        None,
    ),
    "only the last state": (
        helper.make_node("RNN", ["x", "w", "r"], ["", "y"], hidden_size=5),
        {"x": (7, 2, 4), "w": (1, 5, 4), "r": (1, 5, 5)},
        2 * 7 * 2 * (5 * 4 + 5 * 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPECIAL)
def test_special_products(path: Path, name: str) -> None:
    node, shapes, expected = SPECIAL[name]
    save(path, [node], shapes)
    work = count_work(path, shapes)
    assert work.matrix_operations == expected
    assert work.lower_bound == (expected is None)


@pytest.mark.parametrize(("across", "expected"), [(0, 2 * 2 * 3 * 4 * 5), (1, None)])
def test_a_product_across_its_batch_is_not_counted(
    path: Path, across: int, expected: int | None
) -> None:
    node = helper.make_node(
        "FusedMatMul", ["a", "b"], ["y"], domain="com.microsoft", transBatchA=across
    )
    shapes = {"a": (2, 3, 4), "b": (2, 4, 5)}
    save(path, [node], shapes, y=(2, 3, 5))
    assert count_work(path, shapes).matrix_operations == expected


def test_the_scores_of_attention_are_scaled_and_go_through_a_softmax(path: Path) -> None:
    node, shapes, _ = SPECIAL["attention with its heads in one axis, and a past"]
    save(path, [node], shapes)
    assert count_work(path, shapes).other_operations == (1 + 5) * (2 * 4 * 7 * 15)


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.weight = nn.Parameter(torch.ones(144, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.conv(x)).flatten(1) @ self.weight


class OneBatch(CalibrationDataReader):
    def __init__(self) -> None:
        self._batches = iter([{"x0": np.ones((2, 3, 8, 8), np.float32)}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def optimised(source: Path, target: Path) -> None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    ort.InferenceSession(source, options)


def statically(source: Path, target: Path, form: QuantFormat) -> None:
    quantize_static(source, target, OneBatch(), quant_format=form)


REWRITES: dict[str, tuple[Callable[[Path, Path], None], set[str]]] = {
    "operators": (
        lambda a, b: statically(a, b, QuantFormat.QOperator),
        {"QLinearConv", "QLinearMatMul"},
    ),
    "pairs": (lambda a, b: statically(a, b, QuantFormat.QDQ), {"Conv", "DequantizeLinear"}),
    "dynamic": (lambda a, b: quantize_dynamic(a, b), {"ConvInteger", "MatMulInteger"}),
    "fused": (optimised, {"FusedConv"}),
}


@pytest.mark.parametrize("name", REWRITES)
def test_what_onnxruntime_makes_of_a_model_has_its_matrix_operations(path: Path, name: str) -> None:
    rewrite, expected = REWRITES[name]
    module, inputs = TwoLayers(), zeros((2, 3, 8, 8))
    shapes = exported(path, module, inputs, opset=20)
    rewrite(path, path.with_name("rewritten.onnx"))
    assert expected <= operators(path.with_name("rewritten.onnx"))
    work = count_work(path.with_name("rewritten.onnx"), shapes)
    assert work.matrix_operations == flops(module, inputs)
    plain = count_work(path, shapes)
    if name == "fused":
        assert work.other_operations == plain.other_operations
        assert work.unfused_bytes < plain.unfused_bytes
    else:  # int8 weights, and more to compute
        assert work.least_bytes < plain.least_bytes
        assert work.other_operations > plain.other_operations


def test_quantised_operators_quantise_their_result(path: Path) -> None:
    """Input and output as well: 3 steps to quantise, 2 to go back, 1 for the bias."""
    exported(path, TwoLayers(), zeros((2, 3, 8, 8)), opset=20)
    statically(path, path.with_name("int8.onnx"), QuantFormat.QOperator)
    work = count_work(path.with_name("int8.onnx"), {"x0": (2, 3, 8, 8)})
    image, convolved, product = 2 * 3 * 8 * 8, 2 * 4 * 6 * 6, 2 * 5
    assert work.other_operations == 3 * image + (1 + 3) * convolved + 3 * product + 2 * product


def test_a_transposed_product_of_onnxruntime(path: Path) -> None:
    module, inputs = Call(lambda x: 0.5 * x.mT @ x), zeros((2, 7, 3))
    shapes = exported(path, module, inputs, opset=20)
    optimised(path, path.with_name("fused.onnx"))
    assert operators(path.with_name("fused.onnx")) == {"FusedMatMul"}
    work = count_work(path.with_name("fused.onnx"), shapes)
    assert work.matrix_operations == flops(module, inputs)

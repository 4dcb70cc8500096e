"""What the engine inspector's JSON says of layers.

The layers are written by hand after NVIDIA's documentation and reports of its users, with the names
of real kernels: there is no GPU here to record one on.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtimes.operator_trace import precision_of
from runtimes.tensorrt.layers import read_layers
from toolkit.core.errors import SessionError

FP32, FP16 = "Row major linear FP32", "Channel major FP16 format where channel % 8 == 0"
INT8 = "Thirty-two wide channel vectorized row major Int8 format"
DYNAMIC = "N/A due to dynamic shapes"


def layer(
    kind: str,
    takes: str = FP32,
    gives: str | None = None,
    *,
    tactic: str | None = None,
    weights: str | None = None,
    name: str = "node",
    key: str = "Format/Datatype",
) -> dict[str, Any]:
    """As TensorRT 10 writes it; `key` is where it says the datatype."""
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [{"Name": "a", "Dimensions": [1, 8], key: takes}],
        "Outputs": [{"Name": "b", "Dimensions": [1, 8], key: gives or takes}],
        **({"TacticName": tactic} if tactic else {}),
        **({"Weights": {"Type": weights, "Count": 64}} if weights else {}),
        "Metadata": "[ONNX Layer: node]",
    }


def dtype_of(given: dict[str, Any]) -> str | None:
    (node,) = read_layers(json.dumps({"Layers": [given], "Bindings": ["a", "b"]}))
    return node.dtype


XMMA = "sm80_xmma_fprop_implicit_gemm_{}_nhwckrsc_nhwc_tilesize128x64x32_stage4_g1"


@pytest.mark.parametrize(
    ("tactic", "dtype"),
    [
        (XMMA.format("tf32f32_tf32f32_f32"), "tf32"),
        (XMMA.format("f32f32_tf32f32_f32"), "tf32"),
        ("sm80_xmma_gemm_f32f32_f32f32_f32_nn_n_tilesize64x64x8_stage3_ffma", "float32"),
        ("ampere_scudnn_128x64_relu_small_nn_v1", "float32"),
        (XMMA.format("f16f16_f16f16_f16"), "float16"),
        ("sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x32", "float16"),
        ("ampere_h16816cudnn_128x64_ldg8_relu_stages_32x6_small_nn_v1", "float16"),
        ("turing_h1688cudnn_256x64_ldg8_relu_exp_small_nhwc_tn_v1", "float16"),
        (XMMA.format("bf16bf16_bf16f32_f32"), "bfloat16"),
        (XMMA.format("interleaved_i8i8_i8i32_f32"), "int8"),
        (XMMA.format("interleaved_i8f32_i8i32_f32"), "int8"),
        ("ampere_int8_i8816cudnn_int8_128x128_ldg16_relu_stages_32x3", "int8"),
        ("sm89_xmma_gemm_e4m3e4m3_e4m3f32_f32_tn_n", "float8"),
        ("cutlass_80_tensorop_s1688gemm_128x128_16x4_nn_align4", "tf32"),
    ],
)
def test_the_kernel_says_in_what_a_product_is_computed(tactic: str, dtype: str) -> None:
    for described in (FP32, DYNAMIC):
        assert dtype_of(layer("CaskConvolution", described, tactic=tactic)) == dtype


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (layer("CaskConvolution", DYNAMIC, weights="Half"), "float16"),
        (layer("CaskConvolution", DYNAMIC, weights="Int8"), "int8"),
        (layer("CaskConvolution", DYNAMIC, weights="Float"), "float32"),
        (layer("CaskConvolution", INT8, FP32), "int8"),
        (layer("gemm", "Half"), "float16"),
        (layer("gemm", "Float", key="DataType"), "float32"),
        (layer("gemm", "BF16", key="Datatype"), "bfloat16"),
        (layer("Pooling", FP16), "float16"),
        (layer("Activation", DYNAMIC), "unknown"),
        (layer("SoftMaxV2", FP32), "float32"),
    ],
)
def test_without_a_kernel_s_name_weights_and_tensors_say_it(
    given: dict[str, Any], dtype: str
) -> None:
    assert dtype_of(given) == dtype


@pytest.mark.parametrize(
    "given",
    [
        layer("Reformat", FP32, INT8),
        layer("NoOp", DYNAMIC),
        layer("Shuffle", FP32),
        layer("Constant", FP32),
        layer("kgen", FP32, FP16, name="__myl_Cast_myl0_0"),
        layer("kgen", FP32, name="__myl_MoveTranResh_myl0_3"),
        layer("Quantize", FP32, INT8),
    ],
)
def test_what_moves_or_converts_computes_nothing(given: dict[str, Any]) -> None:
    assert dtype_of(given) is None


def test_a_fused_kernel_of_quantised_values_computes_on_what_they_stand_for() -> None:
    fused = layer("kgen", INT8, FP32, name="__myl_CastMulAddRelu_myl0_4")
    assert dtype_of(fused) == "float32"
    assert (
        dtype_of(layer("fusion", INT8, FP32, name="__myl_FcCastAdd", tactic="x_i8i8_y")) == "int8"
    )


def test_layers_are_in_order_and_named() -> None:
    layers = [
        layer("CaskConvolution", tactic=XMMA.format("f16f16_f16f16_f16"), name="conv + relu"),
        layer("Reformat", name="copy"),
    ]
    nodes = read_layers(json.dumps({"Layers": layers, "I/O Tensors": []}))
    assert [(node.name, node.operator) for node in nodes] == [
        ("conv + relu", "CaskConvolution"),
        ("copy", "Reformat"),
    ]
    assert {node.provider for node in nodes} == {"TensorRT"}
    assert precision_of(nodes) == "float16"


def test_an_engine_with_names_alone_does_not_say_in_what_it_computed() -> None:
    nodes = read_layers(json.dumps({"Layers": ["conv + relu", "copy"]}))
    assert [node.operator for node in nodes] == ["unknown", "unknown"]
    assert precision_of(nodes) == "unknown"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"Layers": [{}]}', '{"Layers": 7}'])
def test_what_is_no_list_of_layers_is_an_error(text: str) -> None:
    with pytest.raises(SessionError, match="engine inspector"):
        read_layers(text)

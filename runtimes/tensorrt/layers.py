"""Reader of the layers that TensorRT's engine inspector reports, as operators that ran.

The JSON is that of an engine built with detailed profiling verbosity:
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/engine-tools.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from runtimes.operator_trace import Node
from toolkit.core.errors import SessionError

PROVIDER = "TensorRT"
UNKNOWN = "unknown"
TF32 = "tf32"

# The first match counts: a kernel with float16 products and float32 sums names both.
TACTICS = {
    TF32: r"tf32|tensorop_s1688gemm(?!_f16|_bf16)",
    "int8": r"i8i8|i8i32|i8f32|i8816|i8832|i16832|imma|int8|_s8_",
    "float8": r"e4m3|e5m2|fp8",
    "bfloat16": r"bf16",
    "float16": r"f16f16|[hs]884|[hs]1688|[hs]16816|hmma|hgemm|hcudnn|fp16",
    "float32": r"f32f32|sgemm|scudnn|ffma|fp32",
}
"""Patterns for the dtype of products in kernel names. TF32 rounds float32 factors to fewer bits."""

DATATYPES = {
    "bfloat16": r"bf16|bfloat16",
    "float16": r"fp16|half|float16",
    "float8": r"fp8|e4m3",
    "int8": r"int8",
    "float32": r"fp32|float\b|float32",
}
"""Patterns for dtypes of arithmetic in descriptions of tensors and weights."""

FLOATING = ("float32", "bfloat16", "float16")
PRODUCTS = re.compile(r"conv|gemm|matmul|matrix|fullyconnected|einsum|mha|attention", re.IGNORECASE)
MOVING = frozenset({
    "cast", "concatenation", "constant", "copy", "gather", "identity", "memcpy", "memset", "noop",
    "quantize", "dequantize", "reformat", "reshape", "resize", "shape", "shape_call", "shuffle",
    "signal", "slice", "squeeze", "transpose", "unsqueeze", "wait",
})  # fmt: skip
"""Layer types that do not compute on the values."""
FUSED = re.compile(r"__myl_([A-Za-z]+)")
MOVED = re.compile(r"(?:Cast|Move|Copy|Tran|Resh|Repl|Slic|Conc|Gath|Fill|Shap|Squeeze|Reshape)+")
DESCRIBED_BY = ("Format/Datatype", "DataType", "Datatype", "Format")


def read_layers(text: str) -> tuple[Node, ...]:
    """Return the layers of an engine, in order. Raise SessionError if the JSON is not as expected.

    A layer that is only a name, as in an engine built with less verbosity, has an unknown operator
    and dtype.
    """
    try:
        layers = json.loads(text)["Layers"]
        return tuple(_node(layer) for layer in layers)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SessionError(
            f"TensorRT's engine inspector gave what is no list of layers: {error!r}.",
            hint="Report it with the versions from `toolkit doctor`.",
        ) from error


def _node(layer: str | Mapping[str, Any]) -> Node:
    if isinstance(layer, str):
        return Node(name=layer, operator=UNKNOWN, provider=PROVIDER, dtype=UNKNOWN)
    name, kind = str(layer["Name"]), str(layer["LayerType"])
    dtype = None if _only_moves(name, kind) else _computes_in(layer, kind)
    return Node(name=name, operator=kind, provider=PROVIDER, dtype=dtype)


def _only_moves(name: str, kind: str) -> bool:
    """Return whether a layer only holds, moves or converts values.

    The name of a fused kernel lists its operations.
    """
    fused = FUSED.match(name)
    return kind.lower() in MOVING or (fused is not None and bool(MOVED.fullmatch(fused[1])))


def _computes_in(layer: Mapping[str, Any], kind: str) -> str:
    """Return the dtype of a layer's arithmetic, from its kernel, weights, or inputs and outputs.

    A layer without products that takes int8 computes in floating point, on the dequantised values.
    """
    tactic = str(layer.get("TacticName", "")).lower()
    if found := _first(TACTICS, tactic):
        return found
    weights = layer.get("Weights")
    if isinstance(weights, Mapping) and (found := _first(DATATYPES, str(weights.get("Type")))):
        return found
    dtypes = _dtypes(layer.get("Inputs", ())) + _dtypes(layer.get("Outputs", ()))
    if not PRODUCTS.search(f"{kind} {layer['Name']}"):
        dtypes = [dtype for dtype in dtypes if dtype in FLOATING] or dtypes
    return dtypes[0] if dtypes else UNKNOWN


def _dtypes(tensors: Sequence[Mapping[str, Any]]) -> list[str]:
    described = (" ".join(str(t[key]) for key in DESCRIBED_BY if key in t) for t in tensors)
    return [dtype for text in described if (dtype := _first(DATATYPES, text))]


def _first(patterns: Mapping[str, str], text: str) -> str | None:
    lower = text.lower()
    return next((dtype for dtype, pattern in patterns.items() if re.search(pattern, lower)), None)

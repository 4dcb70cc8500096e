"""Of the double: the operations that the toolkit's models are lowered to, and no others."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlir_tensorrt.compiler.ir import Plain, RankedTensorType, Value, add

ActivationTypeAttr = ElementWiseOperationAttr = MatrixOperationAttr = PoolingTypeAttr = Plain
ReduceOperationAttr = SliceModeAttr = UnaryOperationAttr = Plain


def _op(kind: str, attributes: dict[str, Any] | None = None, **inputs: Value | None) -> Value:
    return add(Value(kind, inputs, attributes or {}))


def constant(array: np.ndarray) -> Value:
    return add(Value("constant", {}, {}, constant=array))


def convolution(
    x: Value,
    stride: list[int],
    *,
    pre_padding: list[int],
    post_padding: list[int],
    kernel: Value,
    bias: Value | None,
    num_groups: int,
    dilation: list[int],
) -> Value:
    attributes = {
        "stride": list(stride),
        "before": list(pre_padding),
        "after": list(post_padding),
        "groups": num_groups,
        "dilation": list(dilation),
    }
    return _op("convolution", attributes, x=x, kernel=kernel, bias=bias)


def pooling(
    x: Value,
    window: list[int],
    stride: list[int],
    before: list[int],
    after: list[int],
    how: str,
    *,
    average_count_excludes_padding: bool | None,
) -> Value:
    attributes = {
        "how": how,
        "window": list(window),
        "stride": list(stride),
        "before": list(before),
        "after": list(after),
        "excludes_padding": average_count_excludes_padding,
    }
    return _op("pooling", attributes, x=x)


def matrix_multiply(a: Value, b: Value, of_a: str, of_b: str) -> Value:
    return _op("matrix_multiply", {"of_a": of_a, "of_b": of_b}, a=a, b=b)


def element_wise(a: Value, b: Value, how: str) -> Value:
    return _op("element_wise", {"how": how}, a=a, b=b)


def unary(x: Value, how: str) -> Value:
    return _op("unary", {"how": how}, x=x)


def activation(x: Value, how: str) -> Value:
    return _op("activation", {"how": how}, x=x)


def reduce(x: Value, axes: list[int], how: str, *, keep_dimensions: bool) -> Value:
    return _op("reduce", {"axes": list(axes), "how": how, "keep": keep_dimensions}, x=x)


def concatenation(values: list[Value], *, axis: int) -> Value:
    return _op("concatenation", {"axis": axis}, **{str(n): v for n, v in enumerate(values)})


def transpose(x: Value, permutation: list[int]) -> Value:
    return _op("transpose", {"permutation": permutation}, x=x)


def shape(x: Value) -> Value:
    return _op("shape", x=x)


def slice(
    x: Value,
    *,
    start: Value | None = None,
    size: Value | None = None,
    stride: Value | None = None,
    fill: Value | None = None,
    mode: str = "kDEFAULT",
    static_start: list[int] | None = None,
    static_size: list[int] | None = None,
    static_stride: list[int] | None = None,
) -> Value:
    static = {"start": static_start, "size": static_size, "stride": static_stride}
    attributes = {"mode": mode, **{n: v for n, v in static.items() if v is not None}}
    return _op("slice", attributes, x=x, start=start, size=size, stride=stride, fill=fill)


def _typed(kind: str, result: RankedTensorType, **inputs: Value | None) -> Value:
    made = _op(kind, **inputs)
    made.set_type(result)
    return made


def cast(result: RankedTensorType, input: Value) -> Value:
    return _typed("cast", result, x=input)


def collapse_rank(result: RankedTensorType, input: Value) -> Value:
    return _typed("collapse_rank", result, x=input)


def reshape(result: RankedTensorType, x: Value, *, shape: Value) -> Value:
    return _typed("reshape", result, x=x, shape=shape)


def broadcast(
    result: RankedTensorType, x: Value, *, shape: Value, broadcast_dims: list[int]
) -> Value:
    made = _typed("broadcast", result, x=x, shape=shape)
    made.attributes["axes"] = list(broadcast_dims)
    return made

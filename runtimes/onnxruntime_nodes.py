"""The nodes that ONNX Runtime ran, from its record of a pass."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from runtimes.executed import Node

DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "int8": "int8",
    "uint8": "int8",
}
# Operators that move, convert or hold values, or only run the nodes of a subgraph.
MOVING = frozenset(
    {
        "Cast", "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "DequantizeLinear",
        "DynamicQuantizeLinear", "Expand", "Flatten", "Gather", "GatherElements", "GatherND",
        "Identity", "If", "Loop", "MemcpyFromHost", "MemcpyToHost", "NonZero", "OneHot", "Pad",
        "QuantizeLinear", "ReorderInput", "ReorderOutput", "Reshape", "ReverseSequence", "Scan",
        "ScatterElements", "ScatterND", "Shape", "Size", "Slice", "SpaceToDepth", "Split",
        "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where",
    }
)  # fmt: skip
# They take and give float32 and compute in eight bits; weights in packed form are not recorded.
EIGHT_BITS = frozenset({"DynamicQuantizeLSTM", "DynamicQuantizeMatMul"})
# Weights of a few bits; whether the products are of float32 or int8 is not recorded.
UNTOLD = frozenset({"MatMulBnb4", "MatMulNBits", "QMoE"})

NAME = re.compile(r'"name" :"(.*)","args" :')


def read_nodes(record: str) -> tuple[Node, ...]:
    """The nodes in the order in which they first ran, to a microsecond; a loop's body once.

    `record` is the text of the file that InferenceSession.end_profiling() names.
    """
    events = sorted(_parse(record), key=lambda event: event["ts"])
    return tuple(
        dict.fromkeys(
            _node(event["name"], event["args"]) for event in events if "provider" in event["args"]
        )
    )


def _parse(record: str) -> list[dict[str, Any]]:
    try:
        events: list[dict[str, Any]] = json.loads(record)
    except json.JSONDecodeError:
        # Old versions write names as they are, with quotes and backslashes that JSON forbids.
        sound = NAME.sub(lambda found: f'"name" :{json.dumps(found[1])},"args" :', record)
        events = json.loads(sound)
    return events


def _node(name: str, arguments: Mapping[str, Any]) -> Node:
    operator = arguments["op_name"]
    tensors = (*arguments["output_type_shape"], *arguments["input_type_shape"])
    return Node(
        name=name.removesuffix("_kernel_time"),
        operator=operator,
        provider=arguments["provider"],
        dtype=_arithmetic(operator, (kind for tensor in tensors for kind in tensor)),
    )


def _arithmetic(operator: str, kinds: Iterable[str]) -> str | None:
    """The dtype in which an operator computes on tensors of these kinds, outputs first.

    Integers of more than eight bits are extents and indices, not the model's arithmetic.
    """
    if operator in MOVING:
        return None
    if operator in UNTOLD:
        return "unknown"
    dtypes = [DTYPES[kind] for kind in kinds if kind in DTYPES]
    if operator in EIGHT_BITS or "int8" in dtypes:
        return "int8"
    return dtypes[0] if dtypes else None

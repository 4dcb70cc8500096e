"""Reader of ONNX Runtime's profile of a forward pass, which lists the nodes that ran."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from runtimes.operator_trace import Node

DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "int8": "int8",
    "uint8": "int8",
}
# Operators that move, convert or hold values, or that only run the nodes of a subgraph.
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
# Operators with float32 inputs and outputs that compute in INT8. Profiles lack packed weights.
EIGHT_BITS = frozenset({"DynamicQuantizeLSTM", "DynamicQuantizeMatMul"})
# Operators with weights of a few bits. Profiles do not show if they multiply float32 or int8.
UNTOLD = frozenset({"MatMulBnb4", "MatMulNBits", "QMoE"})

NAME = re.compile(r'"name" :"(.*)","args" :')


def read_nodes(record: str) -> tuple[Node, ...]:
    """Return the nodes in the order in which they first ran; the nodes of a loop's body once.

    `record` is the text of the file that InferenceSession.end_profiling() names. Its timestamps
    have a resolution of a microsecond.
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
        # Old versions do not escape quotes and backslashes in names.
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
    """Return the dtype in which an operator computes on tensors of these types, outputs first.

    Integers of more than 8 bits are extents and indices, not the model's arithmetic.
    """
    if operator in MOVING:
        return None
    if operator in UNTOLD:
        return "unknown"
    dtypes = [DTYPES[kind] for kind in kinds if kind in DTYPES]
    if operator in EIGHT_BITS or "int8" in dtypes:
        return "int8"
    return dtypes[0] if dtypes else None

"""Records of passes as ONNX Runtime writes them, and what they say of each node."""

from __future__ import annotations

import json

import pytest

from runtimes.onnxruntime.profile import read_nodes

CPU = "CPUExecutionProvider"


def event(name: str, operator: str, inputs: list[str], outputs: list[str], *, ts: int = 0) -> str:
    """A line of the file as old versions write it, the name between quotes as it is."""
    arguments = {
        "op_name": operator,
        "provider": CPU,
        "input_type_shape": [{kind: [1, 2]} for kind in inputs],
        "output_type_shape": [{kind: [1, 2]} for kind in outputs],
    }
    return (
        f'{{"cat" : "Node","pid" :1,"tid" :1,"dur" :3,"ts" :{ts},"ph" : "X",'
        f'"name" :"{name}_kernel_time","args" : {json.dumps(arguments)}}}'
    )


SESSION = (
    '{"cat" : "Session","pid" :1,"tid" :1,"dur" :9,"ts" :1,"ph" : "X",'
    '"name" :"session_initialization","args" : {}}'
)


def record(*events: str) -> str:
    return "[\n" + ",\n".join((SESSION, *events)) + "\n]\n"


def dtype(operator: str, inputs: list[str], outputs: list[str]) -> str | None:
    (node,) = read_nodes(record(event("n", operator, inputs, outputs)))
    return node.dtype


def test_nodes_come_in_the_order_in_which_they_ran() -> None:
    late, early = event("b", "Relu", ["float"], ["float"], ts=9), event("a", "Conv", [], [], ts=3)
    assert [node.name for node in read_nodes(record(late, early))] == ["a", "b"]


def test_the_body_of_a_loop_is_named_once() -> None:
    rounds = [event("body", "Add", ["float"], ["float"], ts=i) for i in range(5)]
    (node,) = read_nodes(record(*rounds))
    assert (node.name, node.operator, node.provider) == ("body", "Add", CPU)


@pytest.mark.parametrize("name", ['say "x"', "C:\\models", 'a","args" : {', "Größe", ""])
def test_any_name_of_a_node_is_read(name: str) -> None:
    found = read_nodes(record(event(name, "Relu", ["float"], ["float"])))
    assert [node.name for node in found] == [name]


@pytest.mark.parametrize(
    ("operator", "inputs", "outputs", "expected"),
    [
        ("Conv", ["float", "float"], ["float"], "float32"),
        ("Gemm", ["double", "double"], ["double"], "float64"),
        ("Mul", ["float16", "float16"], ["float16"], "float16"),
        ("LayerNormalization", ["float", "bfloat16"], ["bfloat16"], "bfloat16"),
        ("ArgMax", ["float"], ["int64"], "float32"),
        ("QLinearConv", ["uint8", "float", "uint8", "int8", "float"], ["uint8"], "int8"),
        ("MatMulIntegerToFloat", ["uint8", "int8", "float"], ["float"], "int8"),
        ("DynamicQuantizeMatMul", ["float", "float"], ["float"], "int8"),
        ("MaxPool", ["uint8"], ["uint8"], "int8"),
        ("MatMulNBits", ["float", "uint8", "float"], ["float"], "unknown"),
        ("Add", ["int64", "int64"], ["int64"], None),
        ("Cast", ["float16"], ["float"], None),
        ("QuantizeLinear", ["float", "float", "uint8"], ["uint8"], None),
        ("Transpose", ["float"], ["float"], None),
    ],
)
def test_the_dtype_is_that_of_the_arithmetic(
    operator: str, inputs: list[str], outputs: list[str], expected: str | None
) -> None:
    assert dtype(operator, inputs, outputs) == expected

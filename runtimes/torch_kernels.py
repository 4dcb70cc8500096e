"""The kernels that Inductor generates, by their signatures."""

from __future__ import annotations

import re

from runtimes.executed import Node

POINTER = re.compile(r"(\w+)\*")
FLOATS = {"float": "float32", "double": "float64", "half": "float16", "bfloat16": "bfloat16"}


def kernel_node(name: str, arguments: str) -> Node:
    """A kernel as what ran; `arguments` are their types in C++."""
    return Node(name=name, operator=name, provider="cpu", dtype=_arithmetic(arguments))


def _arithmetic(arguments: str) -> str | None:
    """The dtype of the outputs, which come last; None for a kernel without floating point."""
    dtypes = [FLOATS[kind] for kind in POINTER.findall(arguments) if kind in FLOATS]
    return dtypes[-1] if dtypes else None


TRITON = re.compile(
    r"^(\w+) = async_compile\.triton\(.*?'signature': \{(.*?)\}", re.MULTILINE | re.DOTALL
)
TRITON_ARGUMENT = re.compile(r"'(\w+)': '\*(\w+)'")
TRITON_FLOATS = {"fp32": "float32", "fp64": "float64", "fp16": "float16", "bf16": "bfloat16"}


def triton_nodes(code: str) -> list[Node]:
    """The Triton kernels in code that Inductor generated, each by the dtype of what it writes:
    float32 inside where it reads less, as Inductor widens float16 and bfloat16."""
    return [
        Node(name=name, operator=name, provider="cuda", dtype=_written(signature))
        for name, signature in TRITON.findall(code)
    ]


def _written(signature: str) -> str | None:
    """The dtype of the last output; None for a kernel that writes no floating point."""
    kinds = [kind for name, kind in TRITON_ARGUMENT.findall(signature) if "out_ptr" in name]
    dtypes = [TRITON_FLOATS[kind] for kind in kinds if kind in TRITON_FLOATS]
    return dtypes[-1] if dtypes else None

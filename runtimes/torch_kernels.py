"""The C++ kernels that Inductor generates, by their signatures."""

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

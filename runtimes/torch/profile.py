"""Recorder of the operators that PyTorch runs, from its execution trace of a pass."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch.profiler import ExecutionTraceObserver

from runtimes.operator_trace import Node
from toolkit.core.temporary import scratch_directory

FLOATS = {
    "float": "float32",
    "double": "float64",
    "c10::Half": "float16",
    "c10::BFloat16": "bfloat16",
}
EIGHT_BITS = frozenset({"c10::qint8", "c10::quint8", "signed char"})
QUANTIZED = ("quantized::", "onednn::q")
# Operators that make, move or convert tensors without computing on them.
MOVING = frozenset(
    {
        "_local_scalar_dense", "_reshape_alias", "_to_copy", "_unsafe_view", "alias", "arange",
        "as_strided", "cat", "chunk", "clone", "constant_pad_nd", "contiguous", "copy", "detach",
        "embedding", "empty", "empty_like", "empty_strided", "expand", "expand_as", "fill",
        "flatten", "flip", "full", "gather", "index", "index_select", "item", "lift_fresh",
        "narrow", "new_empty", "ones", "pad", "permute", "repeat", "reshape", "resize",
        "resolve_conj", "resolve_neg", "roll", "select", "slice", "split", "split_with_sizes",
        "squeeze", "stack", "t", "to", "transpose", "unbind", "unfold", "unsqueeze", "view",
        "where", "zero", "zeros",
    }
)  # fmt: skip
Call = Mapping[str, Any]
TENSOR = re.compile(r"Tensor\(([^)]*)\)")


def record(run: Callable[[], object]) -> list[Node]:
    """Call `run` and return the operators that it runs, as `read_nodes` does."""
    with scratch_directory() as place:
        path = place / "pass.json"
        observer = ExecutionTraceObserver()
        observer.register_callback(str(path))
        observer.start()
        try:
            run()
        finally:
            observer.stop()
            observer.unregister_callback()
        return read_nodes(json.loads(path.read_text()))


def read_nodes(trace: Mapping[str, Any]) -> list[Node]:
    """Return the operators that compute, without those that only return an inner operator's output.

    For example, aten::linear calls aten::addmm, and only the latter is returned. `trace` is what
    an ExecutionTraceObserver wrote: calls, each with its caller.
    """
    calls = {call["id"]: call for call in sorted(trace["nodes"], key=lambda call: call["id"])}
    computing = {number: dtype for number, call in calls.items() if (dtype := _arithmetic(call))}
    handing_on = {
        caller
        for number in computing
        for caller in _callers(calls, number)
        if not _storages(calls[caller]).isdisjoint(_storages(calls[number]))
    }
    return [
        Node(
            name=str(number),
            operator=calls[number]["name"],
            provider=_device(calls[number]),
            dtype=dtype,
        )
        for number, dtype in computing.items()
        if number not in handing_on
    ]


def _callers(calls: Mapping[int, Call], number: int) -> Iterator[int]:
    """Yield the callers of a call, the nearest first; the outermost names itself as its caller."""
    while (caller := calls[number]["ctrl_deps"]) in calls and caller != number:
        yield caller
        number = caller


def _storages(call: Call) -> set[int]:
    """Return the storages of the outputs of a call."""
    return {tensor[1] for tensor in _tensors(call["outputs"]["values"])}


def _device(call: Call) -> str:
    *_, device = next(_tensors(call["outputs"]["values"]))
    return str(device).partition(":")[0]


def _tensors(values: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield the tensors in nested lists of values: [tensor, storage, offset, ..., device]."""
    for value in values:
        if isinstance(value, list):
            if value and isinstance(value[0], int) and isinstance(value[-1], str):
                yield value
            else:
                yield from _tensors(value)


def _arithmetic(call: Call) -> str | None:
    """Return the dtype in which a call computes; None if it is no operator or computes nothing.

    Integers of more than 8 bits are extents and indices, not the model's arithmetic.
    """
    space, _, operator = call["name"].rpartition("::")
    if not space or operator.removesuffix("_") in MOVING or not _storages(call):
        return None
    kinds = [
        kind
        for side in ("outputs", "inputs")
        for text in call[side]["types"]
        for kind in TENSOR.findall(text)
    ]
    if call["name"].startswith(QUANTIZED) or not EIGHT_BITS.isdisjoint(kinds):
        return "int8"
    return next((FLOATS[kind] for kind in kinds if kind in FLOATS), None)

"""Of the double: runs a program with torch on the CPU, and holds each result against its type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from mlir_tensorrt.program import DYNAMIC, Operation, Program

Tensor = torch.Tensor


class RuntimeMismatchError(Exception):
    """A result is not of the rank, extents or dtype that nvtripy inferred."""


def run(program: Program, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    values: dict[str, Tensor] = {}
    for declared, array in zip(program.inputs, arrays, strict=True):
        bounds = zip(array.shape, declared.least, declared.largest, strict=True)
        if not all(low <= extent <= high for extent, low, high in bounds):
            raise RuntimeMismatchError(f"Runtime shape mismatch: {array.shape}")
        values[declared.name] = torch.from_numpy(array)
    for operation in program.operations:
        found = _result(operation, program, values)
        _check(operation, found)
        values[operation.name] = found
    return [values[name].contiguous().numpy() for name in program.outputs]


def _result(operation: Operation, program: Program, values: dict[str, Tensor]) -> Tensor:
    if operation.kind == "constant":
        return torch.from_numpy(program.constants[operation.name])
    inputs = {n: None if v is None else values[v] for n, v in operation.inputs.items()}
    return KINDS[operation.kind](operation, **{f"_{n}": v for n, v in inputs.items()})


def _check(operation: Operation, found: Tensor) -> None:
    declared = operation.type
    if declared is None:
        return
    dtype = str(found.dtype).removeprefix("torch.")
    same = len(declared.shape) == found.ndim and all(
        want in (DYNAMIC, got) for want, got in zip(declared.shape, found.shape, strict=False)
    )
    if not same or dtype != declared.dtype:
        raise RuntimeMismatchError(
            f"{operation.kind} gives {dtype}{list(found.shape)}, and nvtripy inferred {declared}"
        )


def _convolution(op: Operation, _x: Tensor, _kernel: Tensor, _bias: Tensor | None) -> Tensor:
    given = op.attributes
    padded = F.pad(_x, _around(given))
    return F.conv2d(padded, _kernel, _bias, given["stride"], 0, given["dilation"], given["groups"])


def _pooling(op: Operation, _x: Tensor) -> Tensor:
    given = op.attributes
    assert not any((*given["before"], *given["after"])), "no model here pads a pooling"
    pool = {"kMAX": F.max_pool2d, "kAVERAGE": F.avg_pool2d}[given["how"]]
    return pool(_x, given["window"], given["stride"])


def _around(given: dict[str, Any]) -> list[int]:
    """Padding in torch's order: the last axis first."""
    pairs = zip(reversed(given["before"]), reversed(given["after"]), strict=True)
    return [extent for pair in pairs for extent in pair]


def _matrix_multiply(op: Operation, _a: Tensor, _b: Tensor) -> Tensor:
    assert (op.attributes["of_a"], op.attributes["of_b"]) == ("kNONE", "kNONE")
    return _a @ _b


ELEMENT_WISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kSUM": torch.add,
    "kSUB": torch.sub,
    "kPROD": torch.mul,
    "kDIV": torch.div,
    "kFLOOR_DIV": torch.floor_divide,
    "kMAX": torch.maximum,
    "kMIN": torch.minimum,
}
UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "kSQRT": torch.sqrt,
    "kRECIP": torch.reciprocal,
    "kNEG": torch.neg,
}
REDUCE: dict[str, Callable[..., Tensor]] = {"kAVG": torch.mean}


def _element_wise(op: Operation, _a: Tensor, _b: Tensor) -> Tensor:
    """TensorRT takes operands of one rank and one dtype."""
    assert _a.ndim == _b.ndim
    assert _a.dtype == _b.dtype
    return ELEMENT_WISE[op.attributes["how"]](_a, _b)


def _reduce(op: Operation, _x: Tensor) -> Tensor:
    how = REDUCE[op.attributes["how"]]
    return how(_x, dim=op.attributes["axes"], keepdim=op.attributes["keep"])


def _concatenation(op: Operation, **tensors: Tensor) -> Tensor:
    return torch.cat([tensors[f"_{n}"] for n in range(len(tensors))], op.attributes["axis"])


def _slice(
    op: Operation,
    _x: Tensor,
    _start: Tensor | None,
    _size: Tensor | None,
    _stride: Tensor | None,
    _fill: Tensor | None,
) -> Tensor:
    """Element k along an axis is the one at start + k * stride; one outside of x is `fill`."""
    given = {"start": _start, "size": _size, "stride": _stride}
    start, size, stride = (op.attributes[n] if t is None else t.tolist() for n, t in given.items())
    for axis, (first, count, step) in enumerate(zip(start, size, stride, strict=True)):
        places = first + step * torch.arange(count)
        inside = (places >= 0) & (places < _x.shape[axis])
        taken = _x.index_select(axis, places.clamp(0, _x.shape[axis] - 1))
        if not inside.all():
            assert op.attributes["mode"] == "kFILL", f"a slice leaves {list(_x.shape)}"
            assert _fill is not None
            form = [-1 if n == axis else 1 for n in range(_x.ndim)]
            taken = torch.where(inside.reshape(form), taken, _fill)
        _x = taken
    return _x


def _reshape(op: Operation, _x: Tensor, _shape: Tensor) -> Tensor:
    return _x.reshape(_shape.tolist())


def _broadcast(op: Operation, _x: Tensor, _shape: Tensor) -> Tensor:
    shape = _shape.tolist()
    assert op.attributes["axes"] == list(range(len(shape) - _x.ndim, len(shape)))
    return _x.expand(shape)


KINDS: dict[str, Callable[..., Tensor]] = {
    "convolution": _convolution,
    "pooling": _pooling,
    "matrix_multiply": _matrix_multiply,
    "element_wise": _element_wise,
    "unary": lambda op, _x: UNARY[op.attributes["how"]](_x),
    "activation": lambda op, _x: {"kRELU": torch.relu}[op.attributes["how"]](_x),
    "reduce": _reduce,
    "concatenation": _concatenation,
    "transpose": lambda op, _x: _x.permute(op.attributes["permutation"]),
    "shape": lambda op, _x: torch.tensor(_x.shape, dtype=torch.int32),
    "slice": _slice,
    "cast": lambda op, _x: _x.to(getattr(torch, op.type.dtype)),
    "collapse_rank": lambda op, _x: _x.reshape(()),
    "reshape": _reshape,
    "broadcast": _broadcast,
}

"""Of the double: as much of MLIR's Python bindings as nvtripy calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlir_tensorrt.program import DYNAMIC, Operation, Type


class _Scope:
    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None: ...


class Context(_Scope):
    def enable_multithreading(self, on: bool) -> None: ...


class Location(_Scope):
    @classmethod
    def unknown(cls) -> Location:
        return cls()

    @classmethod
    def name(cls, name: str) -> Location:
        return cls()

    @classmethod
    def fused(cls, locations: list[Location], metadata: Any) -> Location:
        return cls()


class ElementType(str):
    """By its NumPy name."""


class IntegerType(ElementType):
    @classmethod
    def get_signless(cls, bits: int) -> IntegerType:
        return cls("bool" if bits == 1 else f"int{bits}")


def _floating(name: str) -> type:
    return type(name, (), {"get": staticmethod(lambda: ElementType(name))})


F32Type, F16Type, BF16Type = _floating("float32"), _floating("float16"), _floating("bfloat16")
F64Type, Float8E4M3FNType = _floating("float64"), _floating("float8")


class ShapedType:
    @staticmethod
    def get_dynamic_size() -> int:
        return DYNAMIC


class RankedTensorType:
    def __init__(self, shape: list[int], dtype: str) -> None:
        self.shape, self.dtype = tuple(shape), str(dtype)

    @classmethod
    def get(cls, shape: list[int], dtype: str) -> RankedTensorType:
        return cls(shape, dtype)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def is_dynamic_dim(self, axis: int) -> bool:
        return self.shape[axis] == DYNAMIC


class Plain:
    """An attribute that is nothing but its value."""

    @staticmethod
    def get(value: Any) -> Any:
        return value


ArrayAttr = BoolAttr = DenseI64ArrayAttr = DictAttr = StringAttr = TypeAttr = Plain


class Attribute:
    @staticmethod
    def parse(text: str) -> str:
        return text


class DenseElementsAttr:
    @staticmethod
    def get(array: np.ndarray, type: str, shape: tuple[int, ...]) -> np.ndarray:
        found = np.array(array.view(np.ndarray)).reshape(shape)
        assert found.dtype == type, (found.dtype, type)
        return found


@dataclass(frozen=True)
class FunctionType:
    takes: list[RankedTensorType]
    gives: list[RankedTensorType]

    @classmethod
    def get(cls, takes: list[RankedTensorType], gives: list[RankedTensorType]) -> FunctionType:
        return cls(takes, gives)


class Value:
    """What an operation gives. Its type is the one that nvtripy inferred, once it has set that."""

    def __init__(
        self,
        kind: str,
        inputs: dict[str, Value | None],
        attributes: dict[str, Any],
        constant: np.ndarray | None = None,
        type: RankedTensorType | None = None,
    ) -> None:
        self.kind, self.inputs, self.attributes = kind, inputs, attributes
        self.constant = constant
        self.declared = type

    @property
    def type(self) -> RankedTensorType:
        return self.declared or RankedTensorType([], "unknown")

    def set_type(self, type: RankedTensorType) -> None:
        self.declared = type

    def as_data(self, names: dict[int, str]) -> Operation:
        inputs = {n: None if v is None else names[id(v)] for n, v in self.inputs.items()}
        declared = self.declared and Type(self.declared.dtype, self.declared.shape)
        return Operation(names[id(self)], self.kind, inputs, self.attributes, declared)


@dataclass
class Block:
    arguments: list[Value] = field(default_factory=list)
    operations: list[Value] = field(default_factory=list)
    results: list[Value] = field(default_factory=list)


_blocks: list[Block] = []


class InsertionPoint:
    def __init__(self, block: Any) -> None:
        self.block = block

    def __enter__(self) -> InsertionPoint:
        _blocks.append(self.block)
        return self

    def __exit__(self, *_: object) -> None:
        _blocks.pop()


def add(value: Value) -> Value:
    """Puts it at the end of the function that is being written."""
    _blocks[-1].operations.append(value)
    return value


def give(values: list[Value]) -> None:
    _blocks[-1].results.extend(values)


class Module:
    """Its own operation, and its own body."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}
        self.functions: list[Any] = []

    @classmethod
    def create(cls) -> Module:
        return cls()

    @property
    def body(self) -> Module:
        return self

    @property
    def operation(self) -> Module:
        return self

    def get_asm(self, **_: Any) -> str:
        return "a module of the double"

"""Of the double: a function that nvtripy lowered becomes a program of plain data."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Any

from mlir_tensorrt.compiler import ir
from mlir_tensorrt.program import Input, Program, Type
from mlir_tensorrt.runtime.api import Executable

__all__ = ["CompilerClient", "Executable", "PluginFieldInfo", "translate_mlir_to_executable"]


class PluginFieldInfo: ...


class PluginFieldType(Enum):
    CHAR, DIMS, UNKNOWN = auto(), auto(), auto()
    FLOAT64, FLOAT32, FLOAT16, BF16, FP8 = auto(), auto(), auto(), auto(), auto()
    INT64, INT32, INT16, INT8, INT4 = auto(), auto(), auto(), auto(), auto()


class _Task:
    def run(self, module: ir.Module) -> None: ...


class CompilerClient:
    def __init__(self, context: ir.Context) -> None: ...

    def get_compilation_task(self, pipeline: str, options: list[str]) -> _Task:
        assert pipeline == "tensorrt-to-executable"
        assert "--tensorrt-strongly-typed=True" in options
        return _Task()


def translate_mlir_to_executable(module: ir.Module) -> Executable:
    (function,) = module.functions
    block = function.block
    values = [*block.arguments, *block.operations]
    names = {id(value): f"v{number}" for number, value in enumerate(values)}
    program = Program(
        inputs=[
            Input(
                names[id(value)], Type(value.type.dtype, value.type.shape), **_profile(attributes)
            )
            for value, attributes in zip(block.arguments, function.arg_attrs, strict=True)
        ],
        operations=[value.as_data(names) for value in block.operations],
        outputs=[names[id(value)] for value in block.results],
        constants={names[id(v)]: v.constant for v in block.operations if v.constant is not None},
    )
    return Executable(program.to_bytes())


def _profile(attributes: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    text = attributes.get("tensorrt.shape_profile", "")
    found = {
        key: tuple(int(extent) for extent in extents.split(",") if extent.strip())
        for key, extents in re.findall(r"(min|opt|max)=\[([^]]*)\]", text)
    }
    ours = {"least": "min", "usual": "opt", "largest": "max"}
    return {name: found.get(key, ()) for name, key in ours.items()}

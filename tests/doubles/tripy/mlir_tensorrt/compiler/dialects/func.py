"""Of the double."""

from __future__ import annotations

from typing import Any

from mlir_tensorrt.compiler import ir


class FuncOp:
    def __init__(self, name: str, type: ir.FunctionType, ip: ir.InsertionPoint) -> None:
        self.name, self.type = name, type
        self.attributes: dict[str, Any] = {}
        self.arg_attrs: list[dict[str, Any]] = []
        self.block = ir.Block()
        ip.block.functions.append(self)

    def add_entry_block(self) -> ir.Block:
        self.block.arguments = [ir.Value("input", {}, {}, type=each) for each in self.type.takes]
        return self.block


def ReturnOp(values: list[ir.Value]) -> None:
    ir.give(values)

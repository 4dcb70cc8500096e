"""Types that ONNX allows at each input and output of a node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from exporters.onnx.schemas import Formal, formal_at, schema_of


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Types that the schema of a node allows for one input or output.

    Values whose slots have the same `variable` have the same type; a slot with None is independent
    of the others. `types` are the allowed ones in ONNX's notation: "tensor(float)".
    """

    variable: str | None
    types: frozenset[str]

    def admits(self, dtype: ir.DataType | None) -> bool:
        return dtype is not None and type_string(dtype) in self.types


@dataclass(frozen=True, kw_only=True)
class Slots:
    inputs: Sequence[Slot]
    outputs: Sequence[Slot]
    attributes: frozenset[str]


def type_string(dtype: ir.DataType) -> str:
    return f"tensor({dtype.name.lower()})"


def slots_of(node: ir.Node, opsets: Mapping[str, int]) -> Slots | None:
    """Return the slots of a node, or None if ONNX does not define its operator."""
    schema = schema_of(node.op_type, node.domain, opsets)
    if schema is None:
        return None
    return Slots(
        inputs=_slots(schema.inputs, len(node.inputs)),
        outputs=_slots(schema.outputs, len(node.outputs)),
        attributes=frozenset(schema.attributes),
    )


def _slots(formals: Sequence[Formal], count: int) -> list[Slot]:
    slots = []
    for place in range(count):
        formal = formal_at(formals, place)
        if formal is None:  # a valid graph has no value here
            slots.append(Slot(variable=None, types=frozenset()))
            continue
        variable = None if formal.type_str in formal.types else formal.type_str
        slots.append(Slot(variable=variable, types=frozenset(formal.types)))
    return slots

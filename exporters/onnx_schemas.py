"""ONNX's own definitions of its operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import defs

Formal = defs.OpSchema.FormalParameter


def schema_of(kind: str, domain: str, opsets: Mapping[str, int]) -> defs.OpSchema | None:
    """The definition in force for an operator; None for one that ONNX does not define."""
    domain = "" if domain == "ai.onnx" else domain
    version = opsets.get(domain)
    if version is None or not defs.has(kind, domain):
        return None
    try:
        return defs.get_schema(kind, version, domain)
    except defs.SchemaError:  # it came later
        return None


def formal_at(formals: Sequence[Formal], place: int) -> Formal | None:
    """What stands at a place of a node, where the last one may stand for many."""
    return formals[min(place, len(formals) - 1)] if formals else None

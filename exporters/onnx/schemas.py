"""Lookup of the schemas of ONNX operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import defs

Formal = defs.OpSchema.FormalParameter


def schema_of(kind: str, domain: str, opsets: Mapping[str, int]) -> defs.OpSchema | None:
    """Return the schema of an operator in these opsets, or None if ONNX does not define it."""
    domain = "" if domain == "ai.onnx" else domain
    version = opsets.get(domain)
    if version is None or not defs.has(kind, domain):
        return None
    try:
        return defs.get_schema(kind, version, domain)
    except defs.SchemaError:  # the operator is newer than the opset
        return None


def formal_at(formals: Sequence[Formal], place: int) -> Formal | None:
    """Return the formal parameter at a position; the last one may stand for several."""
    return formals[min(place, len(formals) - 1)] if formals else None

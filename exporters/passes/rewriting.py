"""Passes run on a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from exporters.passes import PASSES
from toolkit.core.documents import Json
from toolkit.core.errors import SourceError


def apply(names: Sequence[str], path: Path) -> list[Json]:
    """Runs the passes in turn on the file in place; says how each changed the operators.

    Raises UnknownNameError, and SourceError for a graph that a pass cannot take, with the file as
    it was.
    """
    passes = {name: PASSES.create(name) for name in names}
    model = ir.load(path)
    changes: list[Json] = []
    for name, each in passes.items():
        before = _operators(model)
        try:
            changed = each(model).modified
        except (ir.passes.PreconditionError, ir.passes.PostconditionError) as error:
            raise SourceError(
                f"Pass {name} cannot be applied to {path}: {error}",
                hint="Leave it out of --passes.",
            ) from error
        after = _operators(model)
        changes.append(
            {
                "pass": name,
                "changed": bool(changed),
                "operators": {
                    kind: [before.get(kind, 0), after.get(kind, 0)]
                    for kind in sorted({*before, *after})
                    if before.get(kind, 0) != after.get(kind, 0)
                },
            }
        )
    ir.save(model, path)
    return changes


def _operators(model: ir.Model) -> dict[str, int]:
    found: dict[str, int] = {}
    for node in model.graph.all_nodes():
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return found

"""Application of passes to a model file."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from exporters.onnx.opsets import CURRENT, DOMAIN, upgraded
from exporters.onnx.reader import external_files, load_model
from exporters.onnx.saving import save_graph
from exporters.passes import PASSES
from exporters.passes.base import NumberedPass
from exporters.passes.precision import Float64
from toolkit.core.documents import Json
from toolkit.core.errors import SourceError, UsageError

Named = tuple[str, ir.passes.InPlacePass]


def parse(given: Sequence[str]) -> list[Named]:
    """Return the passes given as `name` or `name=number`, each with its text.

    Raises UnknownNameError for an unknown pass, and UsageError for an invalid number or a number
    for a pass that takes none.
    """
    return [(text, _made(text)) for text in dict.fromkeys(given)]


def apply(given: Sequence[str], path: Path) -> list[Json]:
    """Run passes on the file in turn and in place; return how each changed the operators and opset.

    A graph of an old opset is first converted to a newer one if a pass needs it. External data
    stays in one external file. Raises as `parse`, and SourceError for a graph that a pass cannot
    rewrite; the file is then unchanged.
    """
    passes = parse(given)
    model = ir.load(path)
    changes: list[Json] = []
    for text, each in passes:
        opset = _opset(model)
        if opset < getattr(each, "least_opset", 0):
            model = ir.from_proto(upgraded(ir.to_proto(model)))
        raised = {} if opset == _opset(model) else {"opset": [opset, _opset(model)]}
        before = _operators(model)
        try:
            changed = each(model).modified
        except Exception as error:  # passes of plugins may raise any exception
            raise SourceError(
                f"Pass {text} cannot be applied to {path.name}: {_reason(error)}",
                hint="Leave it out of --passes.",
            ) from error
        after = _operators(model)
        changes.append(
            {
                "pass": text,
                "changed": bool(changed or raised),
                "operators": {
                    kind: [before.get(kind, 0), after.get(kind, 0)]
                    for kind in sorted({*before, *after})
                    if before.get(kind, 0) != after.get(kind, 0)
                },
                **raised,
            }
        )
    _save(model, path)
    return changes


def _reason(error: BaseException) -> str:
    """Return the message of the innermost exception, because a sequence of passes wraps it."""
    while error.__cause__ is not None:
        error = error.__cause__
    known = isinstance(error, ir.passes.InvariantError | ir.passes.PassError)
    return str(error) if known else f"{type(error).__name__}: {error}"


def _opset(model: ir.Model) -> int:
    return model.graph.opset_imports.get(DOMAIN, CURRENT)


def write_for_evaluator(source: Path, target: Path, *, double: bool) -> None:
    """Write a graph for ONNX's reference evaluator, in float64 if `double`.

    Large tensors are stored beside it. The evaluator computes some operators of old opsets wrongly
    (BatchNormalization below 14 with its default momentum), so the opset is raised if that is
    possible. Raises SourceError for a graph that cannot be converted to float64.
    """
    model = ir.load(source)
    if _opset(model) < CURRENT:
        with contextlib.suppress(SourceError):
            model = ir.from_proto(upgraded(load_model(source)))
    if double:
        _double(model, source)
    save_graph(model, target)


def _double(model: ir.Model, source: Path) -> None:
    try:
        Float64()(model)
    except (ir.passes.PreconditionError, ir.passes.PostconditionError) as error:
        raise SourceError(
            f"{source} has no form in float64: {error}", hint="It can only be compared in float32."
        ) from error


def _made(text: str) -> ir.passes.InPlacePass:
    name, equals, number = text.partition("=")
    made = PASSES.create(name)
    if isinstance(made, NumberedPass):
        made.number = int(made.option.parse(name, number if equals else made.option.default))
    elif equals:
        raise UsageError(
            f"Got pass {text}, but {name} takes no number.", hint=f"Give {name} by itself."
        )
    return made


def _save(model: ir.Model, path: Path) -> None:
    """Write the graph over the file, and remove external files that it no longer reads."""
    beside = external_files(path)
    save_graph(model, path, beside=beside[0] if beside else None)
    for name in set(beside) - set(external_files(path)):
        (path.parent / name).unlink()


def _operators(model: ir.Model) -> dict[str, int]:
    found: dict[str, int] = {}
    for node in model.graph.all_nodes():
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return found

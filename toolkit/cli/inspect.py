"""The command `toolkit inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from toolkit.sources.inspect import Inspection


def inspect(
    artifact: options.Artifact,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Batch size at which operations are counted.  [default: the one that the model or "
            "--input fixes, else 1]"
        ),
    ] = None,
    dim: options.Dims = None,
    input_: options.RandomInputs = None,
    timeout: options.ReadingTimeout = 300.0,
    json: options.Json = False,
) -> None:
    """Print the contents of a model, without running it.

    Prints the inputs, outputs, operators, parameters, and the number of operations of a batch.
    """
    import toolkit
    from toolkit.cli import output

    request = options.input_request(
        data=None, data_dir=None, data_option=None, inputs=None, dim=dim, input_=input_
    )
    found = toolkit.inspect(artifact, batch=batch, inputs=request, timeout_s=timeout)
    if json:
        output.print_json(found.to_json())
    else:
        _print(found)


def _print(found: Inspection) -> None:
    from toolkit.cli import output

    console = output.stdout()
    artifact, signature = found.artifact, found.artifact.signature
    table = output.table(str(artifact.path), "what", "is")
    for what, value in (
        ("format", f"{artifact.format}, {artifact.precision}"),
        ("model", f"{artifact.model.name} ({artifact.model.framework})"),
        ("size", output.size(artifact.size_bytes)),
        ("digest", artifact.digest),
        *(("input", str(spec)) for spec in signature.inputs),
        *(("output", str(spec)) for spec in signature.outputs),
        ("parameters", f"{found.parameters:,} in {found.tensors} tensors"),
        ("stored", output.size(found.stored_bytes)),
        *_work(found),
        *(("made from", f"{p.kind} at {p.path}, {p.digest}") for p in artifact.parents),
        *(
            (f"pass {change['pass']}", _changes(change["operators"]))
            for change in artifact.options.get("passes", ())
        ),
    ):
        table.add_row(what, output.escape(value))
    console.print(table)
    if found.operators:
        operators = output.table("Operators", "operator", "count", numeric=("count",))
        for kind, count in sorted(found.operators.items(), key=lambda item: (-item[1], item[0])):
            operators.add_row(output.escape(kind), str(count))
        console.print(operators)
    for warning in found.warnings:
        console.out(f"warning: {warning}")


def _work(found: Inspection) -> list[tuple[str, str]]:
    work = found.work
    if work is None:
        return []
    at_least = "at least " if work.lower_bound else ""
    products = "unknown" if work.matrix_operations is None else f"{work.matrix_operations:,}"
    return [
        (f"operations, batch {found.batch}", f"{at_least}{products} of matrix products and "
         f"convolutions, {work.other_operations:,} others"),
        (f"bytes, batch {found.batch}", f"{at_least}{work.least_bytes:,} however much is fused, "
         f"{work.unfused_bytes:,} if nothing is"),
    ]  # fmt: skip


def _changes(operators: dict[str, list[int]]) -> str:
    return ", ".join(f"{kind} {a} to {b}" for kind, (a, b) in operators.items()) or "nothing"

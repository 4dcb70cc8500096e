"""toolkit export"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from exporters.base import ExportOptions
    from exporters.weight_parity import WeightParity
    from toolkit.steps.export import Export
    from toolkit.steps.parity_outputs import OutputParity


def export(
    source: options.Artifact,
    to: Annotated[str, typer.Option(help="The target: onnx, openvino, torch-export, aotinductor.")],
    out: Annotated[Path, typer.Option(help="The new directory of the artifact.")],
    via: Annotated[
        str | None,
        typer.Option(help="Go by way of this format.  [default: the shortest way]"),
    ] = None,
    passes: Annotated[
        str | None,
        typer.Option(
            help="Rewrite the ONNX graph: fold-batch-norm, fold-time-channel, simplify; "
            "separated by commas, in this order."
        ),
    ] = None,
    opset: Annotated[
        int | None, typer.Option(help="ONNX's opset.  [default: the exporter's]")
    ] = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    data_option: options.DataOptions = None,
    inputs: options.Inputs = None,
    dim: options.Dims = None,
    input_: options.RandomInputs = None,
    json: options.Json = False,
) -> None:
    """Export a model, with proof that every weight and output is the source's.

    Exits with 1, and writes nothing, when the proof fails.
    """
    import toolkit
    from toolkit.cli import output

    with output.progress() as progress:
        done = toolkit.export(
            source,
            to=to,
            out=out,
            via=via,
            passes=options.names(passes) or [],
            options=_options(opset=opset),
            inputs=options.input_request(
                data=data,
                data_dir=data_dir,
                data_option=data_option,
                inputs=inputs,
                dim=dim,
                input_=input_,
            ),
            progress=progress,
        )
    if json:
        output.print_json({"schema": "toolkit.export/3", **done.to_json()})
    else:
        _print(done, out)


def _options(*, opset: int | None) -> ExportOptions:
    from exporters.base import ExportOptions

    return ExportOptions(opset=opset)


def _print(done: Export, out: Path) -> None:
    from toolkit.cli import output

    console = output.stdout()
    console.print(weights_table(done.weights))
    console.out(f"{weights_told(done.weights)}\n")
    console.print(outputs_table(done.outputs))
    console.out(f"{outputs_told(done.outputs)}\n")
    console.out(f"{out}: {done.artifact.format}, digest {done.artifact.digest}")


def weights_table(weights: WeightParity) -> Table:
    """A row for each tensor: where it went, and how."""
    from toolkit.cli import output

    table = output.table("Weight parity", "tensor", "shape", "found as", "read by", "digest", "")
    for tensor in weights.tensors:
        what = f"{tensor.match}, {tensor.how}" if tensor.how else str(tensor.match)
        if tensor.error:
            what += f", off by {output.scientific(tensor.error)} at most"
        table.add_row(
            output.escape(tensor.name),
            "x".join(map(str, tensor.shape)),
            output.escape(tensor.stored_as or "-"),
            output.escape(", ".join(tensor.readers)),
            tensor.digest.removeprefix("sha256:")[:12],
            output.escape(what),
        )
    return table


def outputs_table(outputs: OutputParity) -> Table:
    """A row for each case: how far the outputs are from the oracle's, and what is allowed."""
    from toolkit.cli import output

    table = output.table(
        f"Output parity of {outputs.runtime} with {outputs.reference}",
        "inputs", "batch", "error", "reference's", "allowed", "relative", "top 5 in order", "",
    )  # fmt: skip
    for case in outputs.cases:
        found = case.judgement
        table.add_row(
            output.escape(case.inputs),
            str(case.batch),
            *(output.scientific(v) for v in (found.error, found.reference_error, found.bound)),
            output.scientific(found.relative),
            "-" if found.order is None else f"{found.order:.1%}",
            "passed" if found.passed else output.escape(f"FAILED: {found.reason}"),
        )
    return table


def outputs_told(outputs: OutputParity) -> str:
    """What they are held against."""
    if outputs.oracle is None:
        return f"Errors are against {outputs.reference}; no oracle: {outputs.remark}."
    return f"Errors are against {outputs.oracle}."


def weights_told(weights: WeightParity) -> str:
    """The sum of it in a sentence."""
    counts = ", ".join(f"{count} {match}" for match, count in weights.to_json()["counts"].items())
    return f"{weights.explained} of {weights.total} weights are explained: {counts}."

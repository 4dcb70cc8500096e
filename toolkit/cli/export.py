"""toolkit export"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from exporters.weight_parity import WeightParity
    from toolkit.steps.export import Export


def export(
    source: Annotated[Path, typer.Argument(help="A checkpoint, an artifact, or an .onnx file.")],
    to: Annotated[str, typer.Option(help="The target: onnx, openvino, torch-export.")],
    out: Annotated[Path, typer.Option(help="The new directory of the artifact.")],
    passes: Annotated[
        str | None,
        typer.Option(
            help="Rewrite the ONNX graph: bfloat16, float16, fold-batch-norm, fold-time-channel, "
            "simplify, static-batch=N; separated by commas, in this order."
        ),
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
            passes=options.names(passes) or [],
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
        output.print_json({"schema": "toolkit.export/2", **done.to_json()})
    else:
        _print(done, out)


def _print(done: Export, out: Path) -> None:
    from toolkit.cli import output

    console = output.stdout()
    console.print(weights_table(done.weights))
    console.out(f"{weights_told(done.weights)}\n")
    outputs = output.table(
        f"Output parity of {done.checked_with} with {done.reference}, {done.inputs}",
        "batch",
        "max abs",
        "max rel",
        "",
    )
    for batch, parity in done.outputs.items():
        outputs.add_row(
            str(batch),
            output.scientific(parity.max_abs),
            output.scientific(parity.max_rel),
            "passed" if parity.passed else "FAILED",
        )
    console.print(outputs)
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


def weights_told(weights: WeightParity) -> str:
    """The sum of it in a sentence."""
    counts = ", ".join(f"{count} {match}" for match, count in weights.to_json()["counts"].items())
    return f"{weights.explained} of {weights.total} weights are explained: {counts}."

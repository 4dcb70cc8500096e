"""The commands `toolkit parity weights` and `toolkit parity outputs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.exporting.check_layers import Layers

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Compare the weights or outputs of two variants of a model.",
)


@app.callback()
def forms() -> None:
    """Compare the weights or outputs of two variants of a model."""


@app.command()
def weights(
    a: Annotated[
        Path, typer.Argument(help="Original model: a checkpoint, artifact or model file.")
    ],
    b: Annotated[
        Path,
        typer.Argument(
            help="Variant that should contain its weights: a checkpoint, artifact or model file."
        ),
    ],
    timeout: options.ReadingTimeout = 300.0,
    json: options.Json = False,
) -> None:
    """Find each weight of A in B, by value.

    Exits with 1 if a weight of A is missing, altered or unused in B, or if B has another weight.
    """
    import toolkit
    from toolkit.cli import output
    from toolkit.cli.export import weights_table, weights_told

    found = toolkit.parity_weights(a, b, timeout_s=timeout)
    if json:
        output.print_json(found.to_json())
    else:
        console = output.stdout()
        console.print(weights_table(found.weights))
        console.out(weights_told(found.weights))
    if not found.weights.passed:
        raise typer.Exit(1)


@app.command()
def outputs(
    a: Annotated[
        Path, typer.Argument(help="Original model: a checkpoint, artifact or model file.")
    ],
    b: Annotated[
        Path,
        typer.Argument(
            help="Variant that should have the same outputs: a checkpoint, artifact or model file."
        ),
    ],
    runtime: Annotated[
        str | None, typer.Option(help="Runtime for B.  [default: the first that opens it]")
    ] = None,
    layers: Annotated[
        bool,
        typer.Option("--layers", help="Also compare inner tensors, matched by name and shape."),
    ] = False,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    data_option: options.DataOptions = None,
    inputs: options.Inputs = None,
    dim: options.Dims = None,
    input_: options.RandomInputs = None,
    timeout: options.ReadingTimeout = 300.0,
    json: options.Json = False,
) -> None:
    """Compare the outputs of B with those of A.

    Both are also compared with the outputs of A in float64, if those can be computed. Exits with 1
    if the outputs of B differ by more than rounding explains.
    """
    import toolkit
    from toolkit.cli import output
    from toolkit.cli.export import outputs_table, outputs_told

    request = options.input_request(
        data=data,
        data_dir=data_dir,
        data_option=data_option,
        inputs=inputs,
        dim=dim,
        input_=input_,
    )
    with output.progress() as progress:
        found = toolkit.parity_outputs(
            a,
            b,
            runtime=runtime,
            inputs=request,
            layers=layers,
            timeout_s=timeout,
            progress=progress,
        )
    if json:
        output.print_json(found.to_json())
    else:
        console = output.stdout()
        console.print(outputs_table(found.outputs))
        console.out(outputs_told(found.outputs))
        if found.layers:
            console.print(_layers_table(found.layers))
            console.out(_layers_told(found.layers))
    if not found.outputs.passed:
        raise typer.Exit(1)


def _layers_table(found: Layers) -> Table:
    from toolkit.cli import output

    table = output.table(
        f"Inner tensors of {found.runtime} with {found.reference}",
        "tensor", "made by", "error", "reference's", "allowed", "relative", "",
    )  # fmt: skip
    for layer in found.layers:
        judged = layer.judgement
        table.add_row(
            output.escape(layer.name),
            output.escape(layer.operator),
            *(output.scientific(v) for v in (judged.error, judged.reference_error, judged.bound)),
            output.scientific(judged.relative),
            ("same" if judged.conclusive else "not conclusive") if judged.passed else "DEPARTS",
        )
    return table


def _layers_told(found: Layers) -> str:
    first = found.first_departing
    told = f"None of {len(found.layers)} tensors departs"
    if first:
        told = f"The first that departs is {first.name}, made by {first.operator}"
    return f"{told}; {found.others} of the first form have no counterpart of their name and shape."

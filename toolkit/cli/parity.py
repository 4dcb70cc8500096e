"""toolkit parity"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.steps.parity_layers import Layers

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Hold two forms of a model against each other.",
)

Form = "A checkpoint, an artifact, or a file of somebody else's."


@app.callback()
def forms() -> None:
    """Hold two forms of a model against each other."""


@app.command()
def weights(
    a: Annotated[Path, typer.Argument(help=f"The model. {Form}")],
    b: Annotated[Path, typer.Argument(help=f"What should hold it. {Form}")],
    timeout: options.ReadingTimeout = 300.0,
    json: options.Json = False,
) -> None:
    """Say where each weight of A went in B, by value.

    Exits with 1 when a weight of A is not explained in B, or B has one that A has not.
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
    a: Annotated[Path, typer.Argument(help=f"The model. {Form}")],
    b: Annotated[Path, typer.Argument(help=f"What should do the same. {Form}")],
    runtime: Annotated[
        str | None, typer.Option(help="What runs B.  [default: the first that opens it]")
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Compare inner tensors too, by name.")
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
    """Hold the outputs of B against those of A, and both against A in float64.

    Exits with 1 when B is further off than rounding explains.
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

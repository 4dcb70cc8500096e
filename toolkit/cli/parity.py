"""toolkit parity"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli import options

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Hold two forms of a model against each other.",
)

Form = "A checkpoint, an artifact, or an .onnx file."


@app.callback()
def forms() -> None:
    """Hold two forms of a model against each other."""


@app.command()
def weights(
    a: Annotated[Path, typer.Argument(help=f"The model. {Form}")],
    b: Annotated[Path, typer.Argument(help=f"What should hold it. {Form}")],
    json: options.Json = False,
) -> None:
    """Say where each weight of A went in B, by value.

    Exits with 1 when a weight of A is not explained in B, or B has one that A has not.
    """
    import toolkit
    from toolkit.cli import output
    from toolkit.cli.export import weights_table, weights_told

    found = toolkit.parity_weights(a, b)
    if json:
        output.print_json(found.to_json())
    else:
        console = output.stdout()
        console.print(weights_table(found.weights))
        console.out(weights_told(found.weights))
    if not found.weights.passed:
        raise typer.Exit(1)

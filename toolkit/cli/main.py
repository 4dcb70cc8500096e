"""The entry point of the console script."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from toolkit.cli import bench, doctor, export, models, results, train, verify
from toolkit.core.errors import ToolkitError
from toolkit.core.version import VERSION

app = typer.Typer(
    name="toolkit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its import alone takes longer than all the rest of --help
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train.train)
app.command()(export.export)
app.command()(verify.verify)
app.command()(bench.bench)
app.add_typer(results.app, name="results")
app.command()(models.models)
app.command()(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"toolkit {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Export a trained model, prove that the artifact is the model, measure how fast it runs.

    Exit codes: 0 done; 1 the check asked for failed; 2 wrong use; 3 could not be done.
    """


def main() -> None:
    """Runs the command; an error that was foreseen ends in its message and exit code."""
    try:
        app()
    except ToolkitError as error:
        typer.secho(f"error: {error.problem}", fg="red", err=True)
        typer.echo(error.hint, err=True)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        typer.echo("The installation is not complete: pip install 'inference-toolkit'", err=True)
        sys.exit(ToolkitError.exit_code)


if __name__ == "__main__":
    main()

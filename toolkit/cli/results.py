"""toolkit results"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli import options

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at results of `toolkit bench` again."
)
Directory = Annotated[Path, typer.Option("--dir", help="Where results are stored.")]


@app.command("list")
def list_results(directory: Directory = Path("results"), json: options.Json = False) -> None:
    """List the stored results, the oldest first."""
    from toolkit.cli import output
    from toolkit.steps.results import list_results

    found = list_results(directory=directory)
    if json:
        rows = [
            {"id": r.id, "created": r.created, "path": str(path), "plan": dict(r.plan)}
            for path, r in found
        ]
        output.print_json({"schema": "toolkit.results/1", "results": rows})
        return
    table = output.table("Results", "id", "created", "artifact", "runtimes", "batches")
    for _, result in found:
        plan = result.plan
        batches = ", ".join(map(str, plan["batches"]))
        table.add_row(
            result.id,
            result.created,
            output.escape(plan["artifact"]),
            ", ".join(plan["runtimes"]),
            batches,
        )
    output.stdout().print(table)


@app.command("show")
def show(
    result: Annotated[str, typer.Argument(help="An id, the beginning of one, or a path.")],
    percentiles: Annotated[
        str | None,
        typer.Option(help="Percentiles, separated by commas.  [default: 90,95,99,99.9]"),
    ] = None,
    directory: Directory = Path("results"),
    json: options.Json = False,
) -> None:
    """Print the figures of a stored result, from its raw samples."""
    from toolkit.cli import bench, bench_training, output
    from toolkit.steps.results import show_result

    wanted = None if percentiles is None else options.numbers(percentiles, "--percentiles")
    shown = show_result(result, directory=directory, percentiles=wanted)
    figures = {**shown.figures, "result": str(shown.path)}
    if json:
        output.print_json(figures)
    elif "training" in figures["plan"]:
        bench_training.print_figures(figures)
    else:
        bench.print_figures(figures)

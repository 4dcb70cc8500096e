"""The commands `toolkit results query`, `push`, `list` and `show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli import options

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List, show, query and push stored results."
)
Directory = Annotated[Path, typer.Option("--dir", help="Directory of the stored results.")]


@app.command("query")
def query(
    sql: Annotated[
        str,
        typer.Option(
            "--sql",
            help="Query in DuckDB's SQL, over the tables results, rows and samples: 'SELECT "
            "runtime, forward_ms FROM rows ORDER BY 2'.",
        ),
    ],
    directory: Directory = Path("results"),
    json: options.Json = False,
) -> None:
    """Query all stored results with SQL."""
    from toolkit.cli import output
    from toolkit.results.query import query

    answer = query(sql, directory=directory)
    output.warn(answer.warnings)
    if json:
        output.print_json(answer.to_json())
        return
    numbers = [
        column
        for at, column in enumerate(answer.columns)
        if any(isinstance(row[at], int | float) for row in answer.rows)
    ]
    table = output.table("", *answer.columns, numeric=tuple(numbers))
    for row in answer.rows:
        table.add_row(*("-" if cell is None else output.escape(_cell(cell)) for cell in row))
    output.stdout().print(table)


@app.command("push")
def push(
    results: Annotated[
        list[str],
        typer.Argument(help="Ids, beginnings of ids, or paths; or all, for every result."),
    ],
    mlflow: Annotated[
        str,
        typer.Option(
            help="URI of the tracking server, such as http://localhost:5000, or of a database."
        ),
    ],
    experiment: Annotated[str, typer.Option(help="MLflow experiment of the runs.")] = "toolkit",
    directory: Directory = Path("results"),
    json: options.Json = False,
) -> None:
    """Push stored results to MLflow.

    Each result becomes a run. Results that are there already are skipped.
    """
    from toolkit.cli import output
    from toolkit.results import store
    from toolkit.results.find import find_result
    from toolkit.results.mlflow_push import push

    warnings: list[str] = []
    found = (
        store.load_readable(store.paths(directory), warnings.append)
        if results == ["all"]
        else [(path, store.load(path)) for path in (find_result(n, directory) for n in results)]
    )
    output.warn(warnings)
    with output.progress() as progress:
        pushed = push(found, mlflow, experiment=experiment, progress=progress)
    if json:
        runs = [one.to_json() for one in pushed]
        output.print_json({"schema": "toolkit.push/1", "runs": runs, "warnings": warnings})
        return
    for one in pushed:
        output.stdout().out(f"{one.result}: run {one.run}{'' if one.new else ' (was there)'}")


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@app.command("list")
def list_results(directory: Directory = Path("results"), json: options.Json = False) -> None:
    """List the stored results, oldest first."""
    from toolkit.cli import output
    from toolkit.results.find import list_results

    warnings: list[str] = []
    found = list_results(directory=directory, warn=warnings.append)
    output.warn(warnings)
    if json:
        rows = [
            {"id": r.id, "created": r.created, "path": str(path), "plan": dict(r.plan)}
            for path, r in found
        ]
        output.print_json({"schema": "toolkit.results/1", "results": rows, "warnings": warnings})
        return
    table = output.table("Results", "id", "created", "artifact", "runtimes", "batches")
    for _, result in found:
        plan = result.plan
        batches = ", ".join(map(str, plan.get("batches", ())))
        table.add_row(
            result.id,
            result.created,
            output.escape(plan.get("artifact", "-")),
            ", ".join(plan.get("runtimes") or dict.fromkeys(row.runtime for row in result.rows)),
            batches,
        )
    output.stdout().print(table)


@app.command("show")
def show(
    result: Annotated[
        str, typer.Argument(help="Id of a result, the beginning of its id, or a path.")
    ],
    percentiles: Annotated[
        str | None,
        typer.Option(help="Percentiles, separated by commas.  [default: 90,95,99,99.9]"),
    ] = None,
    directory: Directory = Path("results"),
    json: options.Json = False,
) -> None:
    """Print the figures of a stored result.

    The figures are computed from its raw samples; nothing is measured again.
    """
    from toolkit.cli import bench, bench_training, output
    from toolkit.results.find import show_result

    wanted = None if percentiles is None else options.numbers(percentiles, "--percentiles")
    shown = show_result(result, directory=directory, percentiles=wanted)
    figures = {**shown.figures, "result": str(shown.path)}
    if json:
        output.print_json(figures)
    elif "training" in figures["plan"]:
        bench_training.print_figures(figures)
    else:
        bench.print_figures(figures)

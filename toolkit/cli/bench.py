"""toolkit bench"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.core.documents import Json


def bench(
    artifact: options.Artifact,
    runtime: options.Runtimes = None,
    batch: Annotated[
        str | None, typer.Option(help="Batches, separated by commas.  [default: 1]")
    ] = None,
    scope: Annotated[
        str,
        typer.Option(
            help="forward (inputs and outputs on the device), end_to_end (host to host), open "
            "(new process to first output); separated by commas."
        ),
    ] = "forward,end_to_end",
    threads: options.Threads = None,
    cpus: Annotated[
        str | None, typer.Option(help="Pin every runtime to these cores: 0,1.  [default: no pin]")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="An option of a runtime's own: onnxruntime.graph_optimization_level=basic. "
            "May be repeated."
        ),
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(help="Exactly so many warm-up runs.  [default: until settled]")
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(help="Exactly so many runs.  [default: until the intervals are narrow]"),
    ] = None,
    target_ci: Annotated[
        float, typer.Option(help="Stop when each median's 95 % interval is within this, ±.")
    ] = 0.01,
    max_seconds: Annotated[
        float, typer.Option(help="Stop a scope of a batch after so many seconds at the latest.")
    ] = 10.0,
    data: Annotated[
        str | None, typer.Option(help="Take inputs from the test rows of this data set.")
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option(help="Take inputs from an .npz file, an array for each by name.")
    ] = None,
    dim: Annotated[
        list[str] | None, typer.Option(help="Extent of a named axis: time=16. May be repeated.")
    ] = None,
    input_: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="Random values for one input: name=shape,dtype,low,high such as "
            "ids=1x128,int64,0,1000; parts may be left empty. May be repeated.",
        ),
    ] = None,
    timeout: options.Timeout = 300.0,
    out: Annotated[Path, typer.Option(help="Where the result is stored.")] = Path("results"),
    json: options.Json = False,
) -> None:
    """Measure an artifact on several runtimes, side by side, each in a process of its own.

    The first runtime is the baseline of the ratios. Exits with 3 when no row succeeded.
    """
    import toolkit
    from toolkit.cli import output
    from toolkit.core.measurement import Status
    from toolkit.measuring.engine import Procedure
    from toolkit.measuring.summary import result_figures
    from toolkit.steps.inputs import InputRequest

    with output.progress() as progress:
        result = toolkit.bench(
            artifact,
            runtimes=options.names(runtime),
            batches=None if batch is None else options.integers(batch, "--batch"),
            scopes=options.names(scope) or (),
            threads=threads,
            cpus=None if cpus is None else options.integers(cpus, "--cpus"),
            tuning=options.tuning(option or []),
            procedure=Procedure(
                warmup=warmup, runs=runs, target_ci=target_ci, max_seconds=max_seconds
            ),
            inputs=InputRequest(
                data=data,
                file=inputs,
                dims=options.dims(dim or []),
                random=options.random_inputs(input_ or []),
            ),
            timeout_s=timeout,
            out=out,
            progress=progress,
        )
    figures = {**result_figures(result), "result": str(out / f"{result.id}.json")}
    if json:
        output.print_json(figures)
    else:
        print_figures(figures)
    # A null row says nothing of the model, unless it is all that was asked for.
    rows = [row for row in result.rows if row.computes] or result.rows
    if not any(row.status is Status.OK for row in rows):
        raise typer.Exit(3)


# In the order in which they are left out, last first, where the terminal is too narrow; the
# percentiles stand between.
FIRST = ("runtime", "median", "status", "± 95 %", "ratio", "verdict")
LAST = ("parity", "samples/s", "peak RSS")
PERCENTILE = re.compile(r"p\d+([._]\d+)?(_ns)?")
TEXT = ("runtime", "verdict", "status")


def print_figures(figures: Json) -> None:
    """The tables of a result, then what its rows and the machine say against them."""
    from toolkit.cli import output

    console = output.stdout()
    rows = figures["rows"]
    for batch, scope in dict.fromkeys(
        (row["batch"], scope) for row in rows for scope in row["scopes"] if scope != "open"
    ):
        cells = [_cells(row, scope) for row in rows if row["batch"] == batch]
        title = f"{scope}, batch {batch} (ratio: time over that of {cells[0]['runtime']})"
        percentiles = tuple(
            dict.fromkeys(key for row in cells for key in row if PERCENTILE.fullmatch(key))
        )
        columns = (*FIRST, *percentiles, *LAST)
        console.print(output.fitting_table(console, title, columns, cells, text=TEXT))
    if "open" in figures["plan"]["scopes"]:
        console.print(_openings(rows))
    console.out(f"inputs: {figures['plan']['inputs']}")
    for row in rows:
        if row["reason"]:
            console.out(f"{row['runtime']}, batch {row['batch']}: {row['reason']}")
    for warning in figures["warnings"]:
        console.out(f"warning: {warning}")
    console.out(f"result: {figures['result']}")


def _openings(rows: list[Json]) -> Table:
    """From a new process that holds the job to the first output, and the parts of that."""
    from toolkit.cli import output

    parts = ("median_ns", "min_ns", "max_ns", "import_ns", "open_ns", "first_run_ns")
    columns = tuple(part.removesuffix("_ns").replace("_", " ") for part in parts)
    table = output.table("open", "runtime", "batch", *columns, numeric=("batch", *columns))
    for row in rows:
        found = row["scopes"].get("open", {})
        times = (output.duration(found.get(part)) for part in parts)
        table.add_row(row["runtime"], str(row["batch"]), *times)
    return table


def _cells(row: Json, scope: str) -> dict[str, str]:
    """What a row shows of a scope, by column."""
    from toolkit.cli import output

    parity = row["parity"]
    around = {
        "runtime": row["runtime"],
        "status": row["status"],
        "parity": "-" if parity is None else output.scientific(parity["max_abs"]),
        "peak RSS": output.mebibytes(row["memory"]["peak_rss_bytes"]),
    }
    found = row["scopes"].get(scope)
    if found is None:
        return around
    times = _times(found)
    if row["status"] == "failed":  # a time that belongs to a wrong answer is struck out
        times = {column: f"[strike]{cell}[/strike]" for column, cell in times.items()}
    return {**around, **times}


def _times(found: Json) -> dict[str, str]:
    from toolkit.cli.output import duration
    from toolkit.measuring.statistics import reach

    interval, median, rate = found["ci95_ns"], found["median_ns"], found["samples_per_second"]
    times = {
        "median": duration(median),
        "± 95 %": f"{reach(interval, median):.1%}" if interval and median else "-",
        **{
            key.removesuffix("_ns").replace("_", "."): duration(found[key])
            for key in found
            if PERCENTILE.fullmatch(key)
        },
        "samples/s": f"{rate:,.0f}" if rate else "-",
    }
    ratio = found["ratio"]
    if ratio is None:
        return times
    low, high = ratio["ci95"]
    if low == high == 1:
        return {**times, "ratio": "1", "verdict": "baseline"}
    shown = f"{ratio['value']:.3f} ({low:.3f}..{high:.3f})"
    return {**times, "ratio": shown, "verdict": ratio["verdict"]}

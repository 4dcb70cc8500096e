"""toolkit bench"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from toolkit.core.documents import Json


def bench(
    artifact: options.Artifact,
    runtime: options.Runtimes = None,
    batch: Annotated[str, typer.Option(help="Batches, separated by commas.")] = "1",
    scope: Annotated[
        str,
        typer.Option(
            help="forward (inputs and outputs on the device), end_to_end (host to host), or both."
        ),
    ] = "forward,end_to_end",
    threads: options.Threads = None,
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

    with output.progress() as progress:
        result = toolkit.bench(
            artifact,
            runtimes=options.names(runtime),
            batches=options.integers(batch, "--batch"),
            scopes=options.names(scope) or (),
            threads=threads,
            procedure=Procedure(
                warmup=warmup, runs=runs, target_ci=target_ci, max_seconds=max_seconds
            ),
            timeout_s=timeout,
            out=out,
            progress=progress,
        )
    figures = {**result_figures(result), "result": str(out / f"{result.id}.json")}
    if json:
        output.print_json(figures)
    else:
        _print(figures)
    if not any(row.status is Status.OK for row in result.rows):
        raise typer.Exit(3)


NUMERIC = ("median", "± 95 %", "p90", "p99", "per sample", "samples/s", "ratio", "peak RSS")


def _print(figures: Json) -> None:
    from toolkit.cli import output

    console = output.stdout()
    rows = figures["rows"]
    for key in dict.fromkeys(
        (row["batch"], scope) for row in rows for scope in row["scopes"] if scope != "open"
    ):
        batch, scope = key
        console.print(_scope_table(batch, scope, [row for row in rows if row["batch"] == batch]))
    for row in rows:
        if row["reason"]:
            console.out(f"{row['runtime']}, batch {row['batch']}: {row['reason']}")
    for warning in figures["warnings"]:
        console.out(f"warning: {warning}")
    console.out(f"result: {figures['result']}")


def _scope_table(batch: int, scope: str, rows: list[Json]) -> Any:
    from toolkit.cli import output

    baseline = rows[0]["runtime"]
    table = output.table(
        f"{scope}, batch {batch} (ratio: time over that of {baseline})",
        "runtime",
        *NUMERIC[:-1],
        "verdict",
        "parity",
        NUMERIC[-1],
        "status",
        numeric=NUMERIC,
    )
    for row in rows:
        found = row["scopes"].get(scope)
        parity = row["parity"]
        close = "-" if parity is None else output.scientific(parity["max_abs"])
        memory = output.mebibytes(row["memory"]["peak_rss_bytes"])
        cells = _cells(found) if found else ["-"] * 8
        # A time that belongs to a wrong answer is struck out.
        style = "strike" if found and row["status"] == "failed" else None
        cells = [f"[{style}]{cell}[/{style}]" if style else cell for cell in cells]
        table.add_row(row["runtime"], *cells, close, memory, row["status"])
    return table


def _cells(found: Json) -> list[str]:
    from toolkit.cli.output import duration
    from toolkit.measuring.statistics import reach

    interval, median, ratio = found["ci95_ns"], found["median_ns"], found["ratio"]
    half = reach(interval, median) if interval and median else None
    rate = found["samples_per_second"]
    return [
        duration(median),
        f"{half:.1%}" if half is not None else "-",
        duration(found["p90_ns"]),
        duration(found["p99_ns"]),
        duration(found["median_ns_per_sample"]),
        f"{rate:,.0f}" if rate else "-",
        *_ratio_cells(ratio),
    ]


def _ratio_cells(ratio: Json | None) -> tuple[str, str]:
    """The ratio with its interval, and the verdict; of the baseline to itself, nothing."""
    if ratio is None:
        return "-", "-"
    low, high = ratio["ci95"]
    if low == high == 1:
        return "1", "baseline"
    return f"{ratio['value']:.3f} ({low:.3f} to {high:.3f})", ratio["verdict"]

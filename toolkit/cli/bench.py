"""The command `toolkit bench`, and the tables of its results."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from toolkit.core.documents import Json


def bench(
    artifact: options.Source,
    to: Annotated[
        str | None,
        typer.Option(
            help="Export to these formats first, with proof, and measure the exports too; "
            "separated by commas.  [default: onnx for your own code or a model family, else none]"
        ),
    ] = None,
    runtime: options.Runtimes = None,
    provider: options.Provider = None,
    device: options.Device = "cpu",
    batch: options.Batches = None,
    scope: options.Scopes = None,
    threads: options.Threads = None,
    cpus: options.Cpus = None,
    option: options.Tuning = None,
    warmup: options.Warmup = None,
    runs: options.Runs = None,
    processes: options.Processes = None,
    target_ci: options.TargetCi = 0.01,
    max_seconds: options.MaxSeconds = 10.0,
    scenario: Annotated[
        str | None,
        typer.Option(
            help="Load scenario to measure in place of scopes: single (each client sends its next "
            "query when the last is answered), server (queries arrive at random, at a mean rate), "
            "offline (all queries at the start). It lasts --max-seconds per row."
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(help="Clients of a scenario, each with a session and a thread.")
    ] = 1,
    qps: Annotated[
        float | None, typer.Option(help="Mean rate of the scenario server, in queries per second.")
    ] = None,
    find_qps: Annotated[
        bool,
        typer.Option(
            "--find-qps",
            help="Find the highest rate of the scenario server that keeps the p99 latency within "
            "--p99-ms.",
        ),
    ] = False,
    p99_ms: Annotated[
        float | None, typer.Option(help="Largest p99 latency allowed by --find-qps, in ms.")
    ] = None,
    example: options.ExampleCode = None,
    dynamic: options.Dynamic = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    data_option: options.DataOptions = None,
    inputs: options.Inputs = None,
    dim: options.Dims = None,
    input_: options.RandomInputs = None,
    allow_fallback: options.AllowFallback = False,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest allowed difference from the reference outputs, as a fraction of their "
            "largest magnitude: 1e-3. Replaces the built-in tolerances, with a warning."
        ),
    ] = None,
    timeout: options.Timeout = 300.0,
    out: options.Out = Path("results"),
    json: options.Json = False,
) -> None:
    """Measure the speed of a model on several runtimes.

    The runtimes are measured in turn, each in its own process. The first one is the baseline of the
    ratios. Exits with 3 if no row succeeded.
    """
    import toolkit
    from toolkit.cli import output
    from toolkit.core.measurement import Status
    from toolkit.measuring.figures.summary import result_figures
    from toolkit.measuring.timing.engine import Procedure

    with output.Unstored() as unstored, output.progress() as progress:
        result = toolkit.bench(
            artifact,
            to=options.names(to),
            example=options.example(example, dynamic),
            runtimes=options.runtimes(runtime, provider, device),
            device=device,
            batches=None if batch is None else options.integers(batch, "--batch"),
            scopes=options.names(scope),
            threads=threads,
            cpus=None if cpus is None else options.integers(cpus, "--cpus"),
            tuning=options.tuning(option or []),
            procedure=Procedure(
                warmup=warmup,
                runs=runs,
                target_ci=target_ci,
                max_seconds=max_seconds,
                processes=processes,
            ),
            traffic=options.traffic(
                scenario=scenario,
                concurrency=concurrency,
                qps=qps,
                find_qps=find_qps,
                p99_ms=p99_ms,
            ),
            inputs=options.input_request(
                data=data,
                data_dir=data_dir,
                data_option=data_option,
                inputs=inputs,
                dim=dim,
                input_=input_,
            ),
            timeout_s=timeout,
            allow_fallback=allow_fallback,
            tolerance=tolerance,
            out=out,
            progress=progress,
        )
    if unstored.error is not None:
        result = unstored.error.result
    figures = {
        **result_figures(result),
        "result": unstored.path(out / f"{result.id}.json"),
    }
    if json:
        output.print_json(figures)
    else:
        print_figures(figures)
    unstored.report()
    # The null runtime does not compute the model, so its rows only count without others.
    rows = [row for row in result.rows if row.computes] or result.rows
    if not any(row.status is Status.OK for row in rows):
        raise typer.Exit(3)


# Columns of the tables, with the percentiles between FIRST and LAST. On a narrow terminal, the last
# ones are left out.
FIRST = ("runtime", "median", "status", "± 95 %", "ratio", "verdict")
LAST = ("parity", "samples/s", "of peak", "GFLOP/s", "peak RSS", "artifact")
RATES = ("of peak", "GFLOP/s")  # shown only if a row has them
PERCENTILE = re.compile(r"p\d+([._]\d+)?(_ns)?")
TEXT = ("runtime", "verdict", "status")


def print_figures(figures: Json) -> None:
    """Print the tables of a result, then reasons, remarks and warnings."""
    from toolkit.cli import output, served

    console = output.stdout()
    rows = figures["rows"]
    for group, scope in dict.fromkeys(
        (row["group"], scope) for row in rows for scope in row["scopes"] if scope != "open"
    ):
        members = [row for row in rows if row["group"] == group]
        names = names_of(members)
        cells = [_cells(row, scope, name) for row, name in zip(members, names, strict=True)]
        title = f"{scope}, batch {members[0]['batch']} (ratio: time over that of {names[0]})"
        percentiles = tuple(
            dict.fromkeys(key for row in cells for key in row if PERCENTILE.fullmatch(key))
        )
        last = [c for c in LAST if c not in RATES or any(c in row for row in cells)]
        columns = (*FIRST, *percentiles, *last)
        console.print(output.fitting_table(console, title, columns, cells, text=TEXT))
    for table in served.tables(console, rows):
        console.print(table)
    if "open" in figures["plan"]["scopes"]:
        console.print(_openings(console, rows))
    for export in figures["plan"].get("exports", ()):
        console.out(_export_told(export))
    console.out(f"inputs: {figures['plan']['inputs']}")
    for line in _remarks_on_work(figures):
        console.out(line)
    for line in _device_times(rows):
        console.out(line)
    for row in rows:
        if row["reason"]:
            console.out(f"{row['runtime']}, batch {row['batch']}: {row['reason']}")
    for reason in served.reasons(rows):
        console.out(reason)
    for warning in figures["warnings"]:
        console.out(f"warning: {warning}")
    if figures["result"] is not None:
        console.out(f"result: {figures['result']}")


def names_of(rows: list[Json]) -> list[str]:
    """Return a name for each row of a group: its runtime, with its artifact if runtimes repeat."""
    from toolkit.cli.output import escape

    runtimes = [row["runtime"] for row in rows]
    if len(set(runtimes)) == len(rows):
        return runtimes
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return [
        f"{letter}: {row['runtime']} on {escape(row['artifact'])}"
        for letter, row in zip(letters, rows, strict=False)
    ]


OPENING_TIMES = ("median", "min", "max", "import", "open", "first run")
OPENING_GROWTH = ("import +", "open +", "first run +")


def _openings(console: Console, rows: list[Json]) -> Table:
    """Return the table of the scope open: the times of its parts, and the growth of the process."""
    from toolkit.cli import output

    cells = []
    for row in rows:
        found = row["scopes"].get("open", {})
        times = {part: output.duration(found.get(_key(part, "ns"))) for part in OPENING_TIMES}
        growth = {part: output.size(found.get(_key(part, "bytes"))) for part in OPENING_GROWTH}
        cells.append({"runtime": row["runtime"], "batch": str(row["batch"]), **times, **growth})
    columns = ("runtime", "batch", *OPENING_TIMES, *OPENING_GROWTH)
    title = "open (+: how far the resident size grew)"
    return output.fitting_table(console, title, columns, cells, text=("runtime",))


def _key(column: str, unit: str) -> str:
    """Return the key of a column: first_run_bytes for `first run +` in bytes."""
    return f"{column.rstrip(' +').replace(' ', '_')}_{unit}"


def _cells(row: Json, scope: str, name: str) -> dict[str, str]:
    """Return the cells of a row in a scope, by column."""
    from toolkit.cli import output

    parity = row["parity"]
    around = {
        "runtime": name,
        "status": row["status"],
        "parity": "-" if parity is None else output.scientific(parity["max_abs"]),
        "peak RSS": output.size(row["memory"]["peak_rss_bytes"]),
        "artifact": output.size(row["memory"]["artifact_bytes"]),
    }
    found = row["scopes"].get(scope)
    if found is None:
        return around
    times = {**time_cells(found), **_rates(row, found)}
    return {**around, **(struck_out(times) if row["status"] == "failed" else times)}


def struck_out(cells: dict[str, str]) -> dict[str, str]:
    """Strike out the cells of a row with wrong outputs."""
    return {column: f"[strike]{cell}[/strike]" for column, cell in cells.items()}


def time_cells(found: Json) -> dict[str, str]:
    """Return the cells of a scope: median with its interval, percentiles, rate, ratio, verdict."""
    from toolkit.cli.output import duration
    from toolkit.measuring.figures.statistics import reach

    interval, median, rate = found["ci95_ns"], found["median_ns"], found["samples_per_second"]
    return {
        "median": duration(median),
        "± 95 %": f"{reach(interval, median):.1%}" if interval and median else "-",
        **{
            key.removesuffix("_ns").replace("_", "."): duration(found[key])
            for key in found
            if PERCENTILE.fullmatch(key)
        },
        "samples/s": f"{rate:,.0f}" if rate else "-",
        **ratio_cells(found["ratio"]),
    }


def ratio_cells(ratio: Json | None) -> dict[str, str]:
    """Return the cells of a ratio with its 95 % interval and verdict; none without a ratio."""
    from toolkit.cli.output import ratio_with

    if ratio is None:
        return {}
    interval = ratio["ci95"]
    if interval == [1.0, 1.0]:
        return {"ratio": "1", "verdict": "baseline"}
    return {"ratio": ratio_with(ratio["value"], interval), "verdict": ratio["verdict"]}


def _rates(row: Json, found: Json) -> dict[str, str]:
    """Return the cells of the FLOP rate; none if it is unknown, or in a scope without rates."""
    rate, share = found.get("operations_per_second"), found.get("share_of_peak")
    if rate is None:
        return {}
    least = "≥ " if row["work"]["lower_bound"] else ""
    shown = {"GFLOP/s": f"{least}{rate / 1e9:,.1f}"}
    return shown if share is None else {**shown, "of peak": f"{least}{share:.1%}"}


def _export_told(export: Json) -> str:
    weights, outputs = export["weights"], export["outputs"]
    worst = max(outputs["cases"], key=lambda case: case["relative"] or 0)
    return (
        f"{export['target']}: {weights['explained']} of {weights['total']} weights explained, "
        f"outputs off by {worst['relative']:.1e} of their range at most"
    )


def _device_times(rows: list[Json]) -> Iterator[str]:
    """Yield a line with the times of a run's parts for each row whose device records them."""
    for row in rows:
        times = ((row["provenance"] or {}).get("details") or {}).get("device_times_ms")
        if times:
            parts = ", ".join(
                f"{part.replace('_', ' ')} {times[part]:.3g} ms"
                for part in ("host_to_device", "compute", "device_to_host")
            )
            yield (
                f"{row['runtime']}, batch {row['batch']}, by events of the device, median of "
                f"{times['passes']} passes: {parts}"
            )


def _remarks_on_work(figures: Json) -> Iterator[str]:
    """Yield the operators that were not counted, and how to measure missing peaks."""
    counted = [row["work"] for row in figures["rows"] if row["work"]]
    for uncounted in dict.fromkeys(tuple(work["uncounted"].items()) for work in counted):
        if uncounted:
            yield f"not counted: {', '.join(f'{name} ({count})' for name, count in uncounted)}"
    forward = [row["scopes"].get("forward", {}) for row in figures["rows"]]
    rated = any(found.get("operations_per_second") is not None for found in forward)
    if rated and not figures["environment"].get("ceilings"):
        threads = figures["environment"]["threads"]
        yield (
            f"no ceilings are stored of this machine with {threads} threads: "
            f"toolkit doctor --ceilings --threads {threads}"
        )

"""toolkit bench"""

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
            help="Export to these targets first, with proof, and measure them too; separated by "
            "commas.  [default: onnx for code or a family, none for files]"
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
            help="In place of scopes: single (a client's next query when its last is answered), "
            "server (queries at random, at a rate), offline (all queries at once). It takes "
            "--max-seconds for each row."
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(help="Clients of a scenario, a session and a thread each.")
    ] = 1,
    qps: Annotated[
        float | None, typer.Option(help="Queries a second of the scenario server.")
    ] = None,
    find_qps: Annotated[
        bool,
        typer.Option("--find-qps", help="Find the largest rate that keeps the p99 in --p99-ms."),
    ] = False,
    p99_ms: Annotated[
        float | None, typer.Option(help="What the p99 of the latency may be for --find-qps.")
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
            help="How far outputs may be from the reference's, as a part of the largest magnitude, "
            "in place of the built-in bounds; with a warning."
        ),
    ] = None,
    timeout: options.Timeout = 300.0,
    out: options.Out = Path("results"),
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
    # A null row says nothing of the model, unless it is all that was asked for.
    rows = [row for row in result.rows if row.computes] or result.rows
    if not any(row.status is Status.OK for row in rows):
        raise typer.Exit(3)


# In the order in which they are left out, last first, where the terminal is too narrow; the
# percentiles stand between.
FIRST = ("runtime", "median", "status", "± 95 %", "ratio", "verdict")
LAST = ("parity", "samples/s", "of peak", "GFLOP/s", "peak RSS", "artifact")
RATES = ("of peak", "GFLOP/s")  # only where a row has them
PERCENTILE = re.compile(r"p\d+([._]\d+)?(_ns)?")
TEXT = ("runtime", "verdict", "status")


def print_figures(figures: Json) -> None:
    """The tables of a result, then what its rows and the machine say against them."""
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
    """What tells the rows of a group apart: runtimes, or artifacts on one runtime."""
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
    """From a new process that holds the job to the first output, the parts of that, and by how
    much the process grew in each."""
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
    """`first run +` in bytes is first_run_bytes."""
    return f"{column.rstrip(' +').replace(' ', '_')}_{unit}"


def _cells(row: Json, scope: str, name: str) -> dict[str, str]:
    """What a row shows of a scope, by column."""
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
    """Times that belong to a wrong answer."""
    return {column: f"[strike]{cell}[/strike]" for column, cell in cells.items()}


def time_cells(found: Json) -> dict[str, str]:
    """Median with its reach, percentiles, rate, ratio and verdict of a scope."""
    from toolkit.cli.output import duration
    from toolkit.measuring.statistics import reach

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
    """The ratio with its interval, and the verdict; nothing where there is none."""
    from toolkit.cli.output import ratio_with

    if ratio is None:
        return {}
    interval = ratio["ci95"]
    if interval == [1.0, 1.0]:
        return {"ratio": "1", "verdict": "baseline"}
    return {"ratio": ratio_with(ratio["value"], interval), "verdict": ratio["verdict"]}


def _rates(row: Json, found: Json) -> dict[str, str]:
    """Empty where no operations were counted, and elsewhere than in the scope that has rates."""
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
    """The parts of a run as the device itself times them, where it does."""
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
    """What no operations were counted of, and how to get the ceilings."""
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

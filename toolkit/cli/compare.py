"""The command `toolkit compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from toolkit.measuring.figures.comparison import Comparison, Pair

Name = Annotated[
    str, typer.Argument(help="Artifact or model file; or a stored result, by its id or path.")
]


def compare(
    context: typer.Context,
    a: Name,
    b: Name,
    tolerance: Annotated[
        float, typer.Option(help="Fraction by which B may be slower than A: 0.05 is 5 %.")
    ] = 0.02,
    runtime: Annotated[
        str | None,
        typer.Option(
            help="Runtimes, separated by commas.  [default: the usual one for the format: "
            "onnxruntime for ONNX, torch for a checkpoint]"
        ),
    ] = None,
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
    data: options.Data = None,
    data_dir: options.DataDir = None,
    data_option: options.DataOptions = None,
    inputs: options.Inputs = None,
    dim: options.Dims = None,
    input_: options.RandomInputs = None,
    allow_fallback: options.AllowFallback = False,
    timeout: options.Timeout = 300.0,
    out: Annotated[
        Path, typer.Option(help="Directory in which results are stored, and ids are looked up.")
    ] = Path("results"),
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown for a comment on a pull request.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Test whether B is slower than A.

    A and B are two artifacts, which are measured in turn, or two stored results. Exits with 0 if B
    is not slower by more than --tolerance, 1 if it is, 3 if the comparison is inconclusive.
    """
    from toolkit.benchmarking.compare import are_results, compare, compare_results
    from toolkit.cli import output
    from toolkit.core.gates import CheckOutcome
    from toolkit.measuring.timing.engine import Procedure

    unstored = output.Unstored()
    if are_results(a, b):
        _refuse_measuring_options(context)
        found = compare_results(a, b, tolerance=tolerance, directory=out)
    else:
        with unstored, output.progress() as progress:
            found = compare(
                a,
                b,
                tolerance=tolerance,
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
                out=out,
                progress=progress,
            )
    if unstored.error is not None:
        found = unstored.error.result
    if json:
        output.print_json(found.to_json())
    elif markdown:
        _print_markdown(found)
    else:
        _print(found)
    unstored.report()
    raise typer.Exit(
        {CheckOutcome.PASSED: 0, CheckOutcome.FAILED: 1, CheckOutcome.UNKNOWN: 3}[found.gate]
    )


def _refuse_measuring_options(context: typer.Context) -> None:
    """Raise UsageError for a measuring option, since stored results are not measured again."""
    from toolkit.core.errors import UsageError

    kept = {"a", "b", "tolerance", "out", "json", "markdown"}
    for parameter in context.command.params:
        name: Any = parameter.name
        source = context.get_parameter_source(name)
        if name not in kept and source is not None and source.name == "COMMANDLINE":
            raise UsageError(
                f"Got {parameter.opts[0]} for two stored results, of which nothing is measured.",
                hint="Leave it out, or give two artifacts.",
            )


def _print(found: Comparison) -> None:
    from toolkit.cli import output

    console = output.stdout()
    console.out(f"A: {_subject(found, 'a')}")
    console.out(f"B: {_subject(found, 'b')}")
    columns = ("runtime", "batch", "scope", "A", "B", "B over A", "verdict", "gate")
    table = output.table("B against A", *columns, numeric=("batch", "A", "B"))
    for pair in found.pairs:
        table.add_row(*_cells(pair))
    console.print(table)
    for pair in found.pairs:
        if pair.reason:
            row = pair.row
            console.out(f"{row.runtime}, batch {row.batch}, {pair.scope}: {pair.reason}")
    for warning in found.warnings:
        console.out(f"warning: {warning}")
    console.out(f"result: {', '.join(found.results)}")
    words = {
        "passed": "B is not slower than A",
        "failed": "B is slower than A",
        "unknown": "inconclusive: the interval does not show whether B is slower than A",
    }
    console.out(f"{words[found.gate]} (tolerance {found.tolerance:.1%})")


def _print_markdown(found: Comparison) -> None:
    """Print a comparison as a comment for a pull request."""
    from toolkit.cli import output
    from toolkit.core.gates import CheckOutcome
    from toolkit.report.markdown import markdown_table

    signs = {
        CheckOutcome.PASSED: "✅ not slower",
        CheckOutcome.FAILED: "❌ slower",
        CheckOutcome.UNKNOWN: "❔ inconclusive",
    }
    console = output.stdout()
    console.out(f"### Latency: {signs[found.gate]} (tolerance {found.tolerance:.1%})\n")
    head = ("runtime", "batch", "scope", "A", "B", "B over A (95 %)", "verdict", "gate")
    rows = [_cells(pair) for pair in found.pairs]
    console.out(markdown_table(head, rows, ("batch", "A", "B")))
    console.out(f"\nA is `{_subject(found, 'a')}`, B is `{_subject(found, 'b')}`.")
    for line in (*(pair.reason for pair in found.pairs if pair.reason), *found.warnings):
        console.out(f"\n> {line}")


def _subject(found: Comparison, side: str) -> str:
    rows = [row for pair in found.pairs if (row := getattr(pair, side)) is not None]
    return ", ".join(dict.fromkeys(row.artifact for row in rows)) or "nothing"


def _cells(pair: Pair) -> tuple[str, ...]:
    from toolkit.cli.output import duration, ratio_with
    from toolkit.measuring.figures.summary import median_of

    row = pair.row
    times = (duration(median_of(one, pair.scope)) for one in (pair.a, pair.b))
    ratio = pair.ratio
    shown = ratio_with(ratio.value, ratio.interval) if ratio else "-"
    verdict = ratio.verdict if ratio else "-"
    return (row.runtime, str(row.batch), pair.scope, *times, shown, verdict, pair.gate)

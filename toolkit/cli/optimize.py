"""The command `toolkit optimize`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import completion, options
from toolkit.core.errors import UsageError

if TYPE_CHECKING:
    from toolkit.optimizing.rounds import CandidateResult
    from toolkit.optimizing.search import Optimized

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
FEW = 4  # if fewer candidates share a reason, they are named
DURATION = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")


def optimize(
    source: options.Artifact,
    out: Annotated[
        Path,
        typer.Option(help="Directory of the search, in which the bundle is written as bundle/."),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.DATA,
            help="Data with labels to measure accuracy on: a data set, or a file.  [default: the "
            "model's]",
        ),
    ] = None,
    data_dir: options.DataDir = None,
    data_option: options.DataOptions = None,
    calibration_data: Annotated[
        str | None,
        typer.Option(help="Data for INT8 calibration.  [default: the training samples of --data]"),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Largest allowed loss, in percentage points of accuracy or per cent of the mean "
            "squared error.  [default: 0.5]"
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Only use float32 variants whose outputs are within the tolerance of float32.",
        ),
    ] = False,
    allow: Annotated[
        str | None,
        typer.Option(
            help="Lower precisions to allow, separated by commas.  [default: int8,bf16,fp16,tf32]"
        ),
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            help="Objective: latency, throughput, p99 (of the latency), memory (peak resident "
            "size) or size (of the files)."
        ),
    ] = "latency",
    batch: Annotated[
        int | None, typer.Option(help="Batch size.  [default: the model's, else 1]")
    ] = None,
    budget: Annotated[str, typer.Option(help="Time limit of this call: 90s, 5m or 1h.")] = "5m",
    threads: options.Threads = None,
    device: Annotated[
        str, typer.Option(help="cpu, or cuda for the runtimes for NVIDIA GPUs.")
    ] = "cpu",
    inputs: options.Inputs = None,
    dim: options.Dims = None,
    input_: options.RandomInputs = None,
    timeout: options.Timeout = 300.0,
    json: options.Json = False,
) -> None:
    """Find the fastest variant that is still accurate enough.

    Variants of the model, runtimes and their options are measured on this machine. The same command
    resumes an interrupted search. Exits with 1 if no variant passes the correctness check.
    """
    import toolkit
    from toolkit.cli import output
    from toolkit.optimizing.candidates import PRECISIONS
    from toolkit.parity.paired import MAX_DROP

    if exact and (max_drop is not None or allow is not None):
        given = "--max-drop" if max_drop is not None else "--allow"
        raise UsageError(
            f"Got --exact and {given}: an exact form is in float32, and loses nothing.",
            hint="Give one of them.",
        )
    with output.progress() as progress:
        found = toolkit.optimize(
            source,
            out=out,
            data=data,
            data_settings=options.settings(data_option or [], "--data-option"),
            data_dir=data_dir,
            calibration_data=calibration_data,
            exact=exact,
            max_drop=MAX_DROP if max_drop is None else max_drop,
            allow=tuple(PRECISIONS) if allow is None else options.names(allow) or (),
            objective=objective,
            batch=batch,
            threads=threads,
            device=device,
            budget_s=_seconds(budget),
            inputs=options.input_request(
                data=None, data_dir=None, data_option=None, inputs=inputs, dim=dim, input_=input_
            ),
            timeout_s=timeout,
            progress=progress,
        )
    if json:
        output.print_json({"schema": "toolkit.optimize/1", **found.to_json()})
    else:
        _print(found)


def _seconds(text: str) -> float:
    found = DURATION.fullmatch(text)
    if found is None:
        raise UsageError(
            f"Got --budget {text}, expected a duration.", hint="Give, for example, 90s, 5m or 1h."
        )
    return float(found[1]) * UNITS[found[2] or "s"]


def _print(found: Optimized) -> None:
    from toolkit.cli import output

    console = output.stdout()
    table = output.table(
        f"Candidates at batch {found.batch}, the best first. ratio: forward time divided by the "
        "model's; Pareto: no other is better in latency, accuracy and memory",
        "candidate",
        "ratio",
        "forward",
        "drop",
        "peak RSS",
        "size",
        "",
        numeric=("ratio", "forward", "drop", "peak RSS", "size"),
    )
    for one in found.candidate_results:
        if one.out is None and one.row is not None:
            table.add_row(*_cells(one, found))
    console.print(table)
    for reason, names in _left_out(found).items():
        told = "; ".join(names) if len(names) < FEW else f"{len(names)} candidates"
        console.out(f"{told}: {reason}")
    for remark in found.remarks:
        console.out(f"warning: {remark}")
    console.out(f"chosen: {found.chosen.candidate.name}")
    if found.ties:
        console.out(f"not shown to be slower: {'; '.join(found.ties)}")
    if found.chosen.verdict is not None:
        console.out(f"accuracy: {found.chosen.verdict.why}")
    console.out(f"bundle: {found.bundle}")


def _left_out(found: Optimized) -> dict[str, list[str]]:
    """Return the names of the candidates that were dropped, by reason."""
    reasons: dict[str, list[str]] = {}
    for one in found.candidate_results:
        if one.out:
            reasons.setdefault(one.out, []).append(one.candidate.name)
    return reasons


def _cells(one: CandidateResult, found: Optimized) -> list[str]:
    from toolkit.cli import output

    row, name = one.row, one.candidate.name
    assert row is not None
    drop = None if one.verdict is None else one.verdict.drop
    marks = [
        "chosen" if name == found.chosen.candidate.name else "",
        "Pareto" if name in found.pareto else "",
    ]
    return [
        output.escape(name),
        output.ratio_with(one.ratio, one.interval),
        output.duration(one.median_ns),
        "-" if drop is None else f"{drop:.2f}",
        output.size(row.peak_rss_bytes),
        output.size(row.artifact_bytes),
        " ".join(mark for mark in marks if mark),
    ]

"""toolkit verify"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolkit.steps.verify import Verification


def verify(
    artifact: options.Artifact,
    data: Annotated[str, typer.Option(help="The data set whose test split is run.")],
    data_dir: options.DataDir = None,
    data_option: options.DataOptions = None,
    runtime: options.Runtimes = None,
    provider: options.Provider = None,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    timeout: options.Timeout = 300.0,
    json: options.Json = False,
) -> None:
    """Hold every runtime against the reference on a whole test split.

    Exits with 1 when a tolerance is broken, 3 when a runtime could not be verified.
    """
    import toolkit
    from toolkit.cli import output

    with output.progress() as progress:
        done = toolkit.verify(
            artifact,
            runtimes=options.runtimes(runtime, provider, device),
            device=device,
            data=data,
            data_dir=data_dir,
            data_settings=options.settings(data_option or [], "--data-option"),
            threads=threads,
            timeout_s=timeout,
            progress=progress,
        )
    if json:
        output.print_json(done.to_json())
    else:
        _print(done)
    if not done.passed:
        raise typer.Exit(1 if done.broken else 3)


def _print(done: Verification) -> None:
    from toolkit.cli import output

    console = output.stdout()
    agreement = ("top-1 agreement",) if "accuracy" in done.scores else ()
    columns = (*done.scores, *agreement, "max abs", "max rel")
    table = output.table(
        f"Verified on {done.samples} test rows of {done.data}",
        "runtime",
        *columns,
        "",
        numeric=columns,
    )
    table.add_row(f"{done.reference} (reference)", *_scores(done.scores))
    for row in done.rows:
        if row.parity is None or row.scores is None:
            table.add_row(row.runtime, *["-"] * len(columns), row.status)
            continue
        table.add_row(
            row.runtime,
            *_scores(row.scores),
            *([] if row.agreement is None else [f"{row.agreement:.2%}"]),
            output.scientific(row.parity.max_abs),
            output.scientific(row.parity.max_rel),
            "passed" if row.passed else "FAILED",
        )
    console.print(table)
    console.out(
        f"Tolerance: |difference| <= {done.tolerance['absolute']:g} + "
        f"{done.tolerance['relative']:g} x max |reference|"
        + (f"; top-1 agreement >= {done.tolerance['agreement']:.1%}." if agreement else ".")
    )
    for row in done.rows:
        if row.reason:
            console.out(f"{row.runtime}: {row.reason}")


def _scores(scores: Mapping[str, float]) -> list[str]:
    """In the order of the columns."""
    return [
        f"{value:.4f}" if name == "accuracy" else f"{value:.6f}" for name, value in scores.items()
    ]

"""toolkit verify"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from toolkit.steps.verify import Verification


def verify(
    artifact: options.Artifact,
    data: Annotated[str, typer.Option(help="The data set whose test split is run.")],
    runtime: options.Runtimes = None,
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
            runtimes=options.names(runtime),
            data=data,
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
    columns = ("loss", "accuracy", "top-1 agreement", "max abs", "max rel")
    table = output.table(
        f"Verified on {done.samples} test rows of {done.data}",
        "runtime",
        *columns,
        "",
        numeric=columns,
    )
    table.add_row(
        f"{done.reference} (reference)", f"{done.loss:.6f}", f"{done.accuracy:.4f}", "", "", "", ""
    )
    for row in done.rows:
        if row.parity is None:
            table.add_row(row.runtime, "-", "-", "-", "-", "-", row.status)
            continue
        table.add_row(
            row.runtime,
            f"{row.loss:.6f}",
            f"{row.accuracy:.4f}",
            f"{row.agreement:.2%}",
            output.scientific(row.parity.max_abs),
            output.scientific(row.parity.max_rel),
            "passed" if row.passed else "FAILED",
        )
    console.print(table)
    console.out(
        f"Tolerance: |difference| <= {done.tolerance['absolute']:g} + "
        f"{done.tolerance['relative']:g} x max |reference|; "
        f"top-1 agreement >= {done.tolerance['agreement']:.1%}."
    )
    for row in done.rows:
        if row.reason:
            console.out(f"{row.runtime}: {row.reason}")

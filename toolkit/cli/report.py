"""The command `toolkit report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli import options


def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Result files, directories of result files, directories of studies or "
            "checkpoints, or ids of results in results/."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="File of the report; an earlier report is replaced.")
    ] = Path("report.html"),
    format: Annotated[
        str | None,
        typer.Option(help="html, md, csv, json or png.  [default: by the suffix of --out]"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Write a report of results, with tables and plots.

    The HTML page needs no network. With --format png, --out is a new directory with an image of
    each plot.
    """
    from toolkit.cli import output
    from toolkit.report.write import write_report

    warnings: list[str] = []
    written = write_report(results, out, format, warnings.append)
    output.warn(warnings)
    if json:
        schema = "toolkit.report-written/1"
        output.print_json({"schema": schema, "path": str(written), "warnings": warnings})
    else:
        output.stdout().out(f"report: {written}")

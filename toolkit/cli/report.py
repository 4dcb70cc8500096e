"""toolkit report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli import options


def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Files of results, directories of them, directories of studies or checkpoints, "
            "ids of results in results/."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Where the report is written, over an earlier one.")
    ] = Path("report.html"),
    format: Annotated[
        str | None,
        typer.Option(help="html, md, csv, json or png.  [default: as --out ends]"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Write one page of tables and plots of results; it needs no network.

    Of png, --out is a new folder, with a picture of each plot.
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

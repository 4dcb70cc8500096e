"""The command `toolkit deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli import options


def deploy(
    source: Annotated[
        Path, typer.Argument(help="Bundle of `toolkit optimize`; or, for triton, an artifact.")
    ],
    to: Annotated[
        str,
        typer.Option(
            help="triton (model repository for Triton Inference Server), or folder (runs without "
            "the toolkit)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="New directory for the deployment.")],
    name: Annotated[
        str | None,
        typer.Option(help="Name of the model in Triton.  [default: the name of the model]"),
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(help="Largest batch in Triton.  [default: the batch that was measured]"),
    ] = None,
    instances: Annotated[
        int | None,
        typer.Option(
            help="Number of instances in Triton.  [default: as many as fit on the measured cores; "
            "1 on a GPU]"
        ),
    ] = None,
    timeout: options.ReadingTimeout = 300.0,
    json: options.Json = False,
) -> None:
    """Deploy a model to Triton, or as a standalone folder.

    The files of the model are copied byte for byte.
    """
    from toolkit.cli import output
    from toolkit.deploying.deploy import deploy

    done = deploy(
        source,
        to=to,
        out=out,
        name=name,
        max_batch=max_batch,
        instances=instances,
        timeout_s=timeout,
    )
    if json:
        output.print_json(done.to_json())
        return
    console = output.stdout()
    console.out(f"{done.target}: {done.directory}, with {done.artifact_digest}")
    for line in done.told:
        console.out(line)

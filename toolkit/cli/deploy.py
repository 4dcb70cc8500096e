"""toolkit deploy"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli import options


def deploy(
    source: Annotated[Path, typer.Argument(help="A bundle of `toolkit optimize`, or an artifact.")],
    to: Annotated[
        str, typer.Option(help="triton, a model repository; or folder, which runs alone.")
    ],
    out: Annotated[Path, typer.Option(help="The new directory.")],
    name: Annotated[
        str | None, typer.Option(help="Of the model in Triton.  [default: the model's]")
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(help="The largest batch in Triton.  [default: the one that was measured]"),
    ] = None,
    instances: Annotated[
        int | None,
        typer.Option(help="Instances in Triton.  [default: as the measured cores have room for]"),
    ] = None,
    timeout: options.ReadingTimeout = 300.0,
    json: options.Json = False,
) -> None:
    """Write what was chosen as it is deployed: a Triton model repository, or a folder that runs.

    The model's files are the artifact's own, byte for byte.
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

"""toolkit train"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli import options


def train(
    model: Annotated[str, typer.Argument(help="A model of `toolkit models`.")],
    data: Annotated[str, typer.Option(help="A data set; digits needs no network.")],
    out: Annotated[Path, typer.Option(help="The new directory of the checkpoint.")],
    epochs: Annotated[int, typer.Option(help="Passes over the training rows.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of weights and order of rows.")] = 0,
    json: options.Json = False,
) -> None:
    """Train a model and write a checkpoint. Ctrl-C keeps the finished epochs."""
    import toolkit
    from toolkit.cli import output

    with output.progress() as progress:
        checkpoint = toolkit.train(
            model, data=data, out=out, epochs=epochs, seed=seed, progress=progress
        )
    interrupted = checkpoint.training["interrupted"]
    if json:
        output.print_json(
            {
                "schema": "toolkit.train/1",
                "checkpoint": str(checkpoint.directory),
                "digest": checkpoint.digest,
                "epoch": checkpoint.epoch,
                "interrupted": interrupted,
                "metrics": dict(checkpoint.metrics),
            }
        )
    else:
        metrics = checkpoint.metrics
        output.stdout().out(
            f"{out}: {model} on {data}, {checkpoint.epoch} epochs"
            f"{' (interrupted)' if interrupted else ''}, "
            f"test accuracy {metrics['test_accuracy']:.2%}, test loss {metrics['test_loss']:.4f}\n"
            f"digest {checkpoint.digest}"
        )
    if interrupted:
        raise typer.Exit(130)

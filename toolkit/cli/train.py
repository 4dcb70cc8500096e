"""The command `toolkit train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli import completion, options
from toolkit.core.errors import UsageError

if TYPE_CHECKING:
    from toolkit.core.artifact import Checkpoint


def train(
    out: Annotated[Path, typer.Option(help="New directory for the checkpoint.")],
    model: Annotated[
        str | None,
        typer.Argument(
            autocompletion=completion.MODELS,
            help="Model of `toolkit models`, or your own code: file.py:callable or "
            "package.module:callable.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.DATA,
            help="Data set, or a .csv or .npz file of samples and targets; digits and diabetes "
            "need no network.",
        ),
    ] = None,
    data_dir: options.DataDir = None,
    data_option: options.DataOptions = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Option of the model, as NAME=VALUE: blocks=3. May be repeated."
        ),
    ] = None,
    framework: Annotated[
        str | None, typer.Option(help="torch, tensorflow or jax.  [default: torch]")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="Training loop of the framework.  [default: eager in torch, fit in tensorflow]"
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training samples.  [default: 10]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Samples per step.  [default: the model's]")
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, adam or rmsprop.  [default: the model's]")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate.  [default: the model's; with another optimizer 0.01 for sgd, "
            "0.001 for adam and rmsprop]"
        ),
    ] = None,
    momentum: Annotated[
        float | None,
        typer.Option(
            help="Momentum of sgd and rmsprop.  [default: the model's; 0 with another optimizer]"
        ),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            help="Factor by which each weight is added to its gradient.  [default: the model's]"
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Learning rate schedule: constant, cosine, or step:30,45:0.1 (times 0.1 from "
            "epoch 30 on, and again from 45 on).  [default: the model's]"
        ),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="Augmentation: crop,flip, one of them, or none.  [default: the data set's]"
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of the initial weights and the order of samples.  [default: 0]"),
    ] = None,
    threads: options.Threads = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, or cuda:1.  [default: cpu]")
    ] = None,
    loader_workers: Annotated[
        int | None,
        typer.Option(help="Worker processes of torch's DataLoader, in mode eager.  [default: 0]"),
    ] = None,
    nproc: Annotated[
        int | None,
        typer.Option(
            help="Processes that share each batch, started by torchrun; with --device cuda, one "
            "GPU each.  [default: 1]"
        ),
    ] = None,
    deterministic: Annotated[
        bool | None,
        typer.Option(
            "--deterministic", help="Use deterministic kernels, whose results repeat bit for bit."
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Checkpoint to resume from, which is not changed.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Train a model, and write a checkpoint. Ctrl-C keeps the finished epochs."""
    import toolkit
    from toolkit.cli import output

    recipe = {
        "epochs": epochs,
        "batch": batch_size,
        "optimizer": optimizer,
        "learning_rate": lr,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "augmentation": _steps(augment),
        "seed": seed,
    }
    with output.progress(lines=True) as progress:
        checkpoint = toolkit.train(
            model,
            out=out,
            data=data,
            data_dir=data_dir,
            data_settings=options.settings(data_option or [], "--data-option"),
            settings=options.settings(set_ or [], "--set"),
            framework=framework,
            mode=mode,
            threads=threads,
            device=device,
            loader_workers=loader_workers,
            deterministic=deterministic,
            processes=nproc,
            resume=resume,
            progress=progress,
            **recipe,
        )
    if json:
        output.print_json(_document(checkpoint))
    else:
        output.stdout().out(_told(out, checkpoint))
    if checkpoint.training["interrupted"]:
        raise typer.Exit(130)


def _steps(text: str | None) -> tuple[str, ...] | None:
    if text == "none":
        return ()
    named = options.names(text)
    if named is not None and "none" in named:
        raise UsageError(f"Got --augment {text}.", hint="Give none alone, or steps: crop,flip.")
    return None if named is None else tuple(named)


def _document(checkpoint: Checkpoint) -> dict[str, Any]:
    from toolkit.core.codec import encode

    training = checkpoint.training
    return {
        "schema": "toolkit.train/1",
        "checkpoint": str(checkpoint.directory),
        "digest": checkpoint.digest,
        "model": encode(checkpoint.spec),
        "epoch": checkpoint.epoch,
        "interrupted": training["interrupted"],
        "metrics": dict(checkpoint.metrics),
        "training": dict(training),
    }


def _told(out: Path, checkpoint: Checkpoint) -> str:
    from toolkit.cli import output

    spec, training = checkpoint.spec, checkpoint.training
    metrics = ", ".join(
        f"{name.replace('_', ' ')} {f'{value:.2%}' if 'accuracy' in name else f'{value:.4f}'}"
        for name, value in checkpoint.metrics.items()
    )
    lines = [
        f"{out}: {spec.name} on {spec.data}, {training['framework']} {training['mode']}, "
        f"{checkpoint.epoch} epochs{' (interrupted)' if training['interrupted'] else ''}"
        f"{', ' + metrics if metrics else ''}"
    ]
    if training["history"]:
        epochs = sorted(record["train_ns"] for record in training["history"])
        inference = training["inference"]
        lines.append(
            f"an epoch {output.duration(epochs[len(epochs) // 2])} (median), "
            f"compiling and warming up {output.duration(training['prepare_ns'])}, "
            f"{inference['rows']:,} test rows in {output.duration(inference['ns'])}, "
            f"peak memory {output.size(max(r['peak_bytes'] for r in training['history']))}"
        )
    return "\n".join([*lines, f"digest {checkpoint.digest}"])

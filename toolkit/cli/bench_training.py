"""The command `toolkit bench-training`, and the tables of its results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli import completion, options

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from toolkit.core.documents import Json


def bench_training(
    model: Annotated[
        str,
        typer.Argument(
            autocompletion=completion.MODELS,
            help="Model of `toolkit models`, or your own code: file.py:callable or "
            "package.module:callable.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            autocompletion=completion.DATA,
            help="Data set, or a .csv or .npz file of samples and targets; digits and diabetes "
            "need no network.",
        ),
    ],
    trainer: Annotated[
        str,
        typer.Option(
            help="Training loops to measure, as FRAMEWORK:MODE, separated by commas: "
            "torch:eager,torch:compile."
        ),
    ],
    batch_size: Annotated[
        str | None,
        typer.Option(help="Batch sizes, separated by commas.  [default: the model's]"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Option of the model, as NAME=VALUE. May be repeated."),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, adam or rmsprop.  [default: the model's]")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Constant learning rate.  [default: the model's; with another optimizer 0.01 for "
            "sgd, 0.001 for adam and rmsprop]"
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
    rows: Annotated[
        int | None,
        typer.Option(help="Train on the first ROWS training samples only.  [default: all]"),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the initial weights and the order of samples.")
    ] = 0,
    warmup: Annotated[
        int | None,
        typer.Option(help="Exact number of warm-up epochs.  [default: until times are stable]"),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            "--runs",
            help="Exact number of measured epochs per row.  [default: until --target-ci or "
            "--max-seconds is reached]",
        ),
    ] = None,
    processes: options.Processes = None,
    target_ci: options.TargetCi = 0.01,
    max_seconds: Annotated[
        float,
        typer.Option(help="Time limit in seconds per batch size, shared by all trainers."),
    ] = 60.0,
    threads: options.Threads = None,
    device: Annotated[
        str, typer.Option(help="Device of all trainers: cpu, cuda, or in torch cuda:1.")
    ] = "cpu",
    cpus: options.Cpus = None,
    python: Annotated[
        list[str] | None,
        typer.Option(
            help="Python interpreter for a framework, as FRAMEWORK=PATH: mxnet=PATH. May be "
            "repeated.  [default for mxnet: .venv-mxnet/bin/python]"
        ),
    ] = None,
    data_dir: options.DataDir = None,
    data_option: options.DataOptions = None,
    timeout: Annotated[
        float, typer.Option(help="Time limit in seconds for each reply of a trainer.")
    ] = 600.0,
    out: options.Out = Path("results"),
    json: options.Json = False,
) -> None:
    """Measure the training speed of a model across frameworks.

    The trainers run in turn, each in its own process, from the same weights on the same batches.
    The first one is the baseline of the ratios. Exits with 3 if no row succeeded.
    """
    import toolkit
    from toolkit.cli import output
    from toolkit.core.measurement import Status
    from toolkit.measuring.figures.summary import result_figures
    from toolkit.measuring.timing.engine import Procedure

    recipe: dict[str, Any] = {
        "optimizer": optimizer,
        "learning_rate": lr,
        "momentum": momentum,
        "weight_decay": weight_decay,
    }
    with output.Unstored() as unstored, output.progress() as progress:
        result = toolkit.bench_training(
            model,
            data=data,
            trainers=options.names(trainer) or [],
            batches=None if batch_size is None else options.integers(batch_size, "--batch-size"),
            settings=options.settings(set_ or [], "--set"),
            rows=rows,
            seed=seed,
            threads=threads,
            device=device,
            cpus=None if cpus is None else options.integers(cpus, "--cpus"),
            procedure=Procedure(
                warmup=warmup,
                runs=epochs,
                target_ci=target_ci,
                max_seconds=max_seconds,
                processes=processes,
            ),
            pythons=options.settings(python or [], "--python"),
            data_dir=data_dir,
            data_settings=options.settings(data_option or [], "--data-option"),
            timeout_s=timeout,
            out=out,
            progress=progress,
            **{name: value for name, value in recipe.items() if value is not None},
        )
    if unstored.error is not None:
        result = unstored.error.result
    figures = {
        **result_figures(result),
        "result": unstored.path(out / f"{result.id}.json"),
    }
    if json:
        output.print_json(figures)
    else:
        print_figures(figures)
    unstored.report()
    if not any(row.status is Status.OK for row in result.rows):
        raise typer.Exit(3)


FIRST = ("trainer", "median", "status", "± 95 %", "ratio", "verdict", "samples/s", "loss")
LAST = ("losses apart", "peak RSS", "prepare", "p90", "epochs")
TEXT = ("trainer", "verdict", "status")


def print_figures(figures: Json) -> None:
    """Print the tables of a result, then reasons and warnings."""
    from toolkit.cli import output

    console = output.stdout()
    rows = figures["rows"]
    for group in dict.fromkeys(row["group"] for row in rows):
        members = [row for row in rows if row["group"] == group]
        epoch = _last_common_epoch(members)
        title = (
            f"one epoch, batch {members[0]['batch']} (ratio: time over that of "
            f"{members[0]['runtime']}; loss: mean of epoch {epoch})"
        )
        cells = [_cells(row, epoch) for row in members]
        console.print(output.fitting_table(console, title, (*FIRST, *LAST), cells, text=TEXT))
    if len(figures["plan"]["batches"]) > 1:
        console.print(_throughput(console, rows))
    console.print(_preparation(console, rows))
    console.out(f"inputs: {figures['plan']['inputs']}")
    for row in rows:
        if row["reason"]:
            console.out(f"{row['runtime']}, batch {row['batch']}: {row['reason']}")
    for warning in figures["warnings"]:
        console.out(f"warning: {warning}")
    if figures["result"] is not None:
        console.out(f"result: {figures['result']}")


def _last_common_epoch(rows: list[Json]) -> int:
    """Return the last epoch that every row with losses finished, counted from 1; 0 for none."""
    counts = [len(row["learning"]["losses"]) for row in rows if row["learning"]]
    return min((count for count in counts if count), default=0)


def _cells(row: Json, epoch: int) -> dict[str, str]:
    """Return the cells of a row, by column; `epoch` is that of the loss."""
    from toolkit.cli import bench, output

    parity = row["parity"]
    differs = parity is not None and not parity["passed"] and row["status"] == "ok"
    cells = {
        "trainer": row["runtime"],
        "status": "differs" if differs else row["status"],
        "peak RSS": output.size(row["memory"]["peak_rss_bytes"]),
        "prepare": output.duration(row["scopes"].get("open", {}).get("first_run_ns")),
    }
    if row["learning"] and 0 < epoch <= len(row["learning"]["losses"]):
        cells["loss"] = f"{row['learning']['losses'][epoch - 1]:.4g}"
    if parity is not None and parity["max_rel"] is not None:
        cells["losses apart"] = output.scientific(parity["max_rel"])
    found = row["scopes"].get("epoch")
    if found is not None:
        times = bench.time_cells(found)
        wanted = {column: times[column] for column in times if column in (*FIRST, *LAST)}
        cells |= wanted if row["status"] == "ok" else bench.struck_out(wanted)
        cells["epochs"] = str(found["samples"])
    return cells


def _throughput(console: Console, rows: list[Json]) -> Table:
    """Return a table of samples per second: a row per trainer, a column per batch size."""
    from toolkit.cli import output

    batches = tuple(dict.fromkeys(f"batch {row['batch']}" for row in rows))
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        rate = row["scopes"].get("epoch", {}).get("samples_per_second")
        line = cells.setdefault(row["runtime"], {"trainer": row["runtime"]})
        line[f"batch {row['batch']}"] = f"{rate:,.0f}" if rate else "-"
    columns = ("trainer", *batches)
    return output.fitting_table(
        console, "samples/s by batch size", columns, list(cells.values()), text=("trainer",)
    )


PARTS = {"import": "import", "open": "open", "first epoch": "first_run"}


def _preparation(console: Console, rows: list[Json]) -> Table:
    """Return a table of import, opening and first epoch of each row, before its measured epochs.

    The first epoch includes compilation; its effect on the weights is undone.
    """
    from toolkit.cli import output

    cells = []
    for row in rows:
        found = row["scopes"].get("open", {})
        times = {name: output.duration(found.get(f"{key}_ns")) for name, key in PARTS.items()}
        growth = {
            f"{name} +": output.size(found.get(f"{key}_bytes")) for name, key in PARTS.items()
        }
        cells.append({"trainer": row["runtime"], "batch": str(row["batch"]), **times, **growth})
    columns = ("trainer", "batch", *PARTS, *(f"{name} +" for name in PARTS))
    title = "before training (compiling is in the first epoch; +: how far the resident size grew)"
    return output.fitting_table(console, title, columns, cells, text=("trainer",))

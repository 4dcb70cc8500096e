"""toolkit bench-training"""

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
        typer.Argument(autocompletion=completion.MODELS, help="A model of `toolkit models`."),
    ],
    data: Annotated[
        str,
        typer.Option(autocompletion=completion.DATA, help="A data set; digits needs no network."),
    ],
    trainer: Annotated[
        str,
        typer.Option(
            help="Loops to measure, framework:mode, separated by commas: torch:eager,torch:compile."
        ),
    ],
    batch_size: Annotated[
        str | None,
        typer.Option(help="Batch sizes, separated by commas.  [default: the model's own]"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option of the model: name=value. May be repeated."),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, adam or rmsprop.  [default: the model's own]")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate.  [default: the model's own]")
    ] = None,
    momentum: Annotated[
        float | None, typer.Option(help="Of sgd and rmsprop.  [default: the model's own]")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Added to the gradient.  [default: the model's own]")
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(help="Train on the first so many rows, for shorter epochs.  [default: all]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and order of rows.")] = 0,
    warmup: Annotated[
        int | None, typer.Option(help="Exactly so many warm-up epochs.  [default: until settled]")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            "--runs",
            help="Exactly so many epochs that count.  [default: until the intervals are narrow]",
        ),
    ] = None,
    processes: options.Processes = None,
    target_ci: options.TargetCi = 0.01,
    max_seconds: Annotated[
        float, typer.Option(help="Stop a batch size after so many seconds at the latest.")
    ] = 60.0,
    threads: options.Threads = None,
    device: Annotated[
        str, typer.Option(help="Where all of them train: cpu, cuda, or cuda:1 in torch.")
    ] = "cpu",
    cpus: options.Cpus = None,
    python: Annotated[
        list[str] | None,
        typer.Option(
            help="The Python of a framework in an environment of its own: mxnet=PATH. May be "
            "repeated.  [default for mxnet: .venv-mxnet/bin/python]"
        ),
    ] = None,
    data_dir: options.DataDir = None,
    data_option: options.DataOptions = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds after which a trainer that does not answer is stopped.")
    ] = 600.0,
    out: options.Out = Path("results"),
    json: options.Json = False,
) -> None:
    """Measure how fast a model trains, side by side, each trainer in a process of its own.

    All start from the same weights and see the same batches. The first trainer is the baseline of
    the ratios. Exits with 3 when no row succeeded.
    """
    import toolkit
    from toolkit.cli import output
    from toolkit.core.measurement import Status
    from toolkit.measuring.engine import Procedure
    from toolkit.measuring.summary import result_figures

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
    """A table for each batch size, throughput against batch size, then what speaks against it."""
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
    """The last epoch that every row with losses finished, counted from 1; 0 for none."""
    counts = [len(row["learning"]["losses"]) for row in rows if row["learning"]]
    return min((count for count in counts if count), default=0)


def _cells(row: Json, epoch: int) -> dict[str, str]:
    """What a row shows, by column."""
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
    """Samples a second of each trainer, a column for each batch size."""
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
    """What comes before the epochs that count, once: the first epoch is taken back."""
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

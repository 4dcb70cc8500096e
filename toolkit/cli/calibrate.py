"""toolkit calibrate"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import completion, options
from toolkit.core.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.steps.calibrate import Calibration
    from toolkit.steps.mixture import Mixture


def calibrate(
    artifact: Annotated[
        Path,
        typer.Argument(
            help="The float32 model: directory of an ONNX artifact, or .onnx file; of a SavedModel "
            "for --preset litert."
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            autocompletion=completion.DATA,
            help="Where the rows come from: the training rows of a data set or of a file of rows "
            "and targets (.csv, .npz), never its test rows; or an .npz file with an array for each "
            "input by name.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The new directory of the artifact.")],
    method: Annotated[
        str,
        typer.Option(
            help="How the range of a tensor is chosen: minmax, entropy, mse, percentile, or "
            "percentile=99.9."
        ),
    ] = "minmax",
    preset: Annotated[
        str, typer.Option(help="What it is for: onnxruntime, openvino, tensorrt, litert.")
    ] = "onnxruntime",
    samples: Annotated[
        int | None, typer.Option(help="So many rows.  [default: 256, or all there are]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which rows.")] = 0,
    per_channel: Annotated[
        bool | None,
        typer.Option(
            "--per-channel/--no-per-channel",
            help="A scale for each output channel of a weight, or one.  [default: the preset's]",
            show_default=False,
        ),
    ] = None,
    symmetric: Annotated[
        bool | None,
        typer.Option(
            "--symmetric/--asymmetric",
            help="Activations as int8 around 0, or as uint8 with a zero point.  [default: the "
            "preset's]",
            show_default=False,
        ),
    ] = None,
    exclude: Annotated[
        str | None,
        typer.Option(help="ONNX nodes that stay in floating point, separated by commas."),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            help="mixed: leave the nodes in floating point that cost most, as few as --max-drop "
            "takes."
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="With --search: what may be lost on the test rows, in percentage points of "
            "accuracy or per cent of the MSE.  [default: 0.5]"
        ),
    ] = None,
    data_dir: options.DataDir = None,
    data_option: options.DataOptions = None,
    timeout: options.ReadingTimeout = 300.0,
    json: options.Json = False,
) -> None:
    """Quantise a float model to eight bits, in ranges that rows of data show.

    Says where each weight went, and how close the outputs are on other rows. Outputs that collapse
    are warned of, and written.
    """
    import toolkit
    from toolkit.cli import output
    from toolkit.parity.paired import MAX_DROP

    if search not in (None, "mixed"):
        raise unknown_name("search", search, ["mixed"])
    if max_drop is not None and search is None:
        raise UsageError(
            f"Got --max-drop {max_drop:g} without --search mixed, which keeps to it.",
            hint="Add --search mixed.",
        )
    with output.progress() as progress:
        done = toolkit.calibrate(
            artifact,
            data=data,
            out=out,
            method=method,
            preset=preset,
            samples=samples,
            seed=seed,
            per_channel=per_channel,
            symmetric=symmetric,
            exclude=options.names(exclude) or [],
            max_drop=(MAX_DROP if max_drop is None else max_drop) if search else None,
            data_settings=options.settings(data_option or [], "--data-option"),
            data_dir=data_dir,
            timeout_s=timeout,
            progress=progress,
        )
    if json:
        output.print_json(done.to_json())
    else:
        _print(done, out)


def _print(done: Calibration, out: Path) -> None:
    from toolkit.cli import output
    from toolkit.cli.export import weights_table, weights_told

    console = output.stdout()
    console.print(weights_table(done.weights))
    console.out(f"{weights_told(done.weights)}\n")
    console.print(_outputs_table(done))
    if done.mixture is not None:
        _print_mixture(done.mixture)
    ranges = f"{len(done.tensors)} ranges by {done.method}" if done.tensors else "ranges"
    console.out(
        f"{ranges} from {len(done.rows.used)} {done.rows.used.description}, for {done.preset}.\n"
    )
    console.out(f"{out}: int8 {done.artifact.format}, digest {done.artifact.digest}")


def _print_mixture(mixture: Mixture) -> None:
    """The nodes that cost most, and which of them stayed in floating point."""
    from toolkit.cli import output

    console = output.stdout()
    if mixture.sensitivities:
        table = output.table(
            "What a node costs when it alone is quantised: SQNR of the worst output",
            "node", "operator", "SQNR", "",
            numeric=("SQNR",),
        )  # fmt: skip
        for one in mixture.sensitivities[: max(10, len(mixture.in_float) + 1)]:
            table.add_row(
                output.escape(one.node),
                one.operator,
                "identical" if one.sqnr_db == math.inf else f"{one.sqnr_db:.1f} dB",
                "in float" if one.node in mixture.in_float else "",
            )
        console.print(table)
    console.out(f"{len(mixture.in_float)} nodes stay in floating point: {mixture.accuracy.why}.\n")


def _outputs_table(done: Calibration) -> Table:
    """A row for each output: how close it is to the float model's."""
    from toolkit.cli import output

    table = output.table(
        f"Outputs on {len(done.rows.held)} {done.rows.held.description}, beside the float model's",
        "output", "SQNR", "cosine", "same top-1 class",
        numeric=("SQNR", "cosine", "same top-1 class"),
    )  # fmt: skip
    for name, found in done.outputs.items():
        table.add_row(
            output.escape(name),
            "identical" if found.sqnr_db == math.inf else f"{found.sqnr_db:.1f} dB",
            "-" if found.cosine is None else f"{found.cosine:.5f}",
            "-" if found.agreement is None else f"{found.agreement:.1%}",
        )
    return table

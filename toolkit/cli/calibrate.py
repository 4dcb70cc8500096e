"""The command `toolkit calibrate`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import completion, options
from toolkit.core.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.quantization.calibrate import Calibration
    from toolkit.quantization.mixed_precision import Mixture


def calibrate(
    artifact: Annotated[
        Path,
        typer.Argument(
            help="Float32 model: directory of an ONNX artifact, or .onnx file; for --preset litert "
            "a SavedModel."
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            autocompletion=completion.DATA,
            help="Calibration data: a data set, or a .csv or .npz file of samples and targets, of "
            "which only training samples are used; or an .npz file with an array for each input, "
            "by name.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="New directory for the INT8 artifact.")],
    method: Annotated[
        str,
        typer.Option(
            help="Method that chooses the range of each tensor: minmax, entropy, mse, or "
            "percentile, optionally with a number: percentile=99.9 (99.99 by default)."
        ),
    ] = "minmax",
    preset: Annotated[
        str, typer.Option(help="Runtime to quantise for: onnxruntime, openvino, tensorrt, litert.")
    ] = "onnxruntime",
    samples: Annotated[
        int | None,
        typer.Option(help="Number of calibration samples.  [default: 256, or all if fewer]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice of samples.")] = 0,
    per_channel: Annotated[
        bool | None,
        typer.Option(
            "--per-channel/--no-per-channel",
            help="One scale per output channel of a weight, or one per weight.  [default: the "
            "preset's]",
            show_default=False,
        ),
    ] = None,
    symmetric: Annotated[
        bool | None,
        typer.Option(
            "--symmetric/--asymmetric",
            help="Symmetric int8 activations, or uint8 activations with a zero point.  [default: "
            "the preset's]",
            show_default=False,
        ),
    ] = None,
    exclude: Annotated[
        str | None,
        typer.Option(help="ONNX nodes to keep in floating point, separated by commas."),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            help="mixed: keep the most sensitive nodes in floating point, as few as --max-drop "
            "requires."
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="With --search: largest allowed loss on the test samples, in percentage points of "
            "accuracy or per cent of the mean squared error.  [default: 0.5]"
        ),
    ] = None,
    data_dir: options.DataDir = None,
    data_option: options.DataOptions = None,
    timeout: options.ReadingTimeout = 300.0,
    json: options.Json = False,
) -> None:
    """Quantise a float32 model to INT8.

    The range of each tensor is chosen from calibration data. Reports how each weight is stored, and
    how close the outputs are to those of the float32 model. If outputs collapse (SQNR below 10 dB),
    the artifact is still written, with a warning.
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
    """Print the most sensitive nodes, and which of them stay in floating point."""
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
    """Return a table with a row per output: how close it is to that of the float model."""
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

"""The command `toolkit export`, and tables of weight and output parity."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import completion, options
from toolkit.core.errors import unknown_name

LAYOUTS = ("NCHW", "NHWC")

if TYPE_CHECKING:
    from rich.table import Table

    from exporters.base import ExportOptions
    from exporters.proof.weight_parity import WeightParity
    from toolkit.exporting.check_outputs import OutputParity
    from toolkit.exporting.export import Export
    from toolkit.parity.judging import Judgement


def export(
    source: options.Source,
    to: Annotated[
        str,
        typer.Option(
            autocompletion=completion.TARGETS,
            help="Target format: aotinductor, litert, onnx, openvino, savedmodel, tensorrt, "
            "tensorrt-rtx, torch-export, tripy.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="New directory for the artifact.")],
    via: Annotated[
        str | None,
        typer.Option(help="Intermediate format to export via.  [default: the shortest route]"),
    ] = None,
    passes: Annotated[
        str | None,
        typer.Option(
            help="Passes that rewrite the ONNX graph, separated by commas, run in the order given: "
            "bfloat16, float16, fold-batch-norm, fold-time-channel, simplify, static-batch=N, "
            "store-constants."
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="Layout of image inputs from Keras: NCHW or NHWC.  [default: the source's]"
        ),
    ] = None,
    opset: Annotated[
        int | None, typer.Option(help="ONNX opset.  [default: the exporter's]")
    ] = None,
    compute_capability: Annotated[
        str | None,
        typer.Option(
            help="For tensorrt-rtx: compute capabilities of the GPUs to build for, separated by "
            "commas; 89 means 8.9.  [default: 80,86,89,120; 75 has no float32 matrix product]"
        ),
    ] = None,
    batches: Annotated[
        str | None,
        typer.Option(
            help="For tensorrt, tensorrt-rtx and tripy: smallest, usual and largest batch.  "
            "[default: 1,8,64]"
        ),
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            help="For tensorrt and tensorrt-rtx: smallest, usual and largest shape of an input, as "
            "INPUT=LEAST:USUAL:LARGEST: x=1x3x224x224:8x3x224x224:64x3x640x640. May be repeated.  "
            "[default: the batches of --batches, with all other axes fixed]"
        ),
    ] = None,
    example: options.ExampleCode = None,
    dynamic: options.Dynamic = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    data_option: options.DataOptions = None,
    inputs: options.Inputs = None,
    dim: options.Dims = None,
    input_: options.RandomInputs = None,
    keep_failed: Annotated[
        Path | None,
        typer.Option(
            help="New directory in which to keep a variant that fails the proof, with the inputs "
            "on which its outputs differ."
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Time limit in seconds for each read of a file, and for each conversion.  "
            "[default: 300 for a read, 3600 for a conversion]"
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Export a model to another format, with proof.

    Every weight of the source must be in the exported file, and the outputs must be those of the
    source within rounding. Otherwise nothing is written to --out, and the exit code is 1.
    """
    import toolkit
    from toolkit.cli import output

    with output.progress() as progress:
        done = toolkit.export(
            source,
            to=to,
            out=out,
            via=via,
            passes=options.names(passes) or [],
            options=_options(opset, layout, compute_capability, batches, profile),
            inputs=options.input_request(
                data=data,
                data_dir=data_dir,
                data_option=data_option,
                inputs=inputs,
                dim=dim,
                input_=input_,
            ),
            example=options.example(example, dynamic),
            keep_failed=keep_failed,
            timeout_s=timeout,
            progress=progress,
        )
    if json:
        output.print_json({"schema": "toolkit.export/3", **done.to_json()})
    else:
        _print(done, out)


def _options(
    opset: int | None,
    layout: str | None,
    compute_capability: str | None,
    batches: str | None,
    profile: list[str] | None,
) -> ExportOptions:
    from exporters.base import ExportOptions

    def read(text: str | None, option: str) -> tuple[int, ...] | None:
        return None if text is None else tuple(options.integers(text, option))

    if layout not in (None, *LAYOUTS):
        raise unknown_name("layout", layout, LAYOUTS)
    return ExportOptions(
        opset=opset,
        layout=layout,
        compute_capabilities=read(compute_capability, "--compute-capability"),
        batches=read(batches, "--batches"),
        profiles=options.profiles(profile) if profile else None,
    )


def _print(done: Export, out: Path) -> None:
    from toolkit.cli import output

    console = output.stdout()
    console.print(weights_table(done.weights))
    console.out(f"{weights_told(done.weights)}\n")
    console.print(outputs_table(done.outputs))
    console.out(f"{outputs_told(done.outputs)}\n")
    console.out(f"{out}: {done.artifact.format}, digest {done.artifact.digest}")


def weights_table(weights: WeightParity) -> Table:
    """Return a table with a row per tensor: how it is stored, and what reads it."""
    from toolkit.cli import output

    table = output.table("Weight parity", "tensor", "shape", "found as", "read by", "digest", "")
    for tensor in weights.tensors:
        what = f"{tensor.match}, {tensor.how}" if tensor.how else str(tensor.match)
        if tensor.error:
            what += f", off by {output.scientific(tensor.error)} at most"
        table.add_row(
            output.escape(tensor.name),
            "x".join(map(str, tensor.shape)),
            output.escape(tensor.stored_as or "-"),
            output.escape(", ".join(tensor.readers)),
            tensor.digest.removeprefix("sha256:")[:12],
            output.escape(what),
        )
    return table


def outputs_table(outputs: OutputParity) -> Table:
    """Return a table with a row per case: errors of the outputs, and the allowed error."""
    from toolkit.cli import output

    aside = "; the artifact itself has not run" if outputs.not_run else ""
    table = output.table(
        f"Output parity of {outputs.runtime} with {outputs.reference}{aside}",
        "inputs", "batch", "error", "reference's", "allowed", "relative", "top 5 in order", "",
    )  # fmt: skip
    for case in outputs.cases:
        found = case.judgement
        table.add_row(
            output.escape(case.inputs),
            str(case.batch),
            *(output.scientific(v) for v in (found.error, found.reference_error, found.bound)),
            output.scientific(found.relative),
            "-" if found.order is None else f"{found.order:.1%}",
            output.escape(_verdict(found)),
        )
    return table


def _verdict(found: Judgement) -> str:
    if not found.passed:
        return f"FAILED: {found.reason}"
    return "passed" if found.conclusive else f"not conclusive: {found.reason}"


def outputs_told(outputs: OutputParity) -> str:
    """Return what the errors are relative to, and which variant did not run."""
    told = f"Errors are against {outputs.oracle}."
    if outputs.oracle is None:
        told = f"Errors are against {outputs.reference}; no oracle: {outputs.remark}."
    elif outputs.remark:
        told = f"{told[:-1]}, or {outputs.reference} where it has not run: {outputs.remark}."
    return f"{told}\nNote: {outputs.not_run}." if outputs.not_run else told


def weights_told(weights: WeightParity) -> str:
    """Return a one-sentence summary of the weight parity."""
    if not weights.total:
        return "The model has no weights."
    counts = ", ".join(f"{count} {match}" for match, count in weights.to_json()["counts"].items())
    return f"{weights.explained} of {weights.total} weights are explained: {counts}."

"""toolkit export"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from toolkit.steps.export import Export


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A directory that `toolkit train` wrote.")],
    to: Annotated[str, typer.Option(help="The target: onnx.")],
    out: Annotated[Path, typer.Option(help="The new directory of the artifact.")],
    json: options.Json = False,
) -> None:
    """Export a checkpoint, with proof that every weight and output is the model's.

    Exits with 1, and writes nothing, when the proof fails.
    """
    import toolkit
    from toolkit.cli import output

    with output.progress() as progress:
        done = toolkit.export(checkpoint, to=to, out=out, progress=progress)
    if json:
        output.print_json({"schema": "toolkit.export/1", **done.to_json()})
    else:
        _print(done, out)


def _print(done: Export, out: Path) -> None:
    from toolkit.cli import output

    console = output.stdout()
    weights = output.table("Weight parity", "tensor", "shape", "found as", "read by", "digest", "")
    for tensor in done.weights.tensors:
        weights.add_row(
            tensor.name,
            "x".join(map(str, tensor.shape)),
            tensor.stored_as or "-",
            ", ".join(tensor.readers),
            tensor.digest.removeprefix("sha256:")[:12],
            tensor.match,
        )
    console.print(weights)
    console.out(f"{done.weights.proved} of {done.weights.total} weights are there bit for bit.\n")
    outputs = output.table(
        f"Output parity with torch, {done.inputs}", "batch", "max abs", "max rel", ""
    )
    for batch, parity in done.outputs.items():
        outputs.add_row(
            str(batch),
            output.scientific(parity.max_abs),
            output.scientific(parity.max_rel),
            "passed" if parity.passed else "FAILED",
        )
    console.print(outputs)
    console.out(f"{out}: {done.artifact.format}, digest {done.artifact.digest}")

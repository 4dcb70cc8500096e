"""The command `toolkit verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import completion, options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolkit.verification.verify import Verification, VerifyOptions


def verify(
    artifacts: Annotated[
        list[Path],
        typer.Argument(
            help="One artifact, which is compared with its reference, or several, which are "
            "compared with the first: directories of artifacts, checkpoints or SavedModels, or "
            "model files: .onnx, .pt2, .keras, .tflite, OpenVINO's .xml.",
            metavar="ARTIFACT...",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.DATA,
            help="Data set, or .csv or .npz file of samples and targets, whose test samples are "
            "run; or an .npz file of the model's inputs, by name, and labels.",
        ),
    ] = None,
    inputs: options.Inputs = None,
    data_dir: options.DataDir = None,
    data_option: options.DataOptions = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Largest allowed loss, in percentage points of accuracy or per cent of the mean "
            "squared error.  [default: outputs must be within the tolerance]"
        ),
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Show the accuracy of each class.")
    ] = False,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers", help="Show how similar the inner tensors are, matched by name and shape."
        ),
    ] = False,
    runtime: options.Runtimes = None,
    provider: options.Provider = None,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    timeout: options.Timeout = 300.0,
    json: options.Json = False,
) -> None:
    """Compare runtimes or artifacts on the same test samples.

    Every runtime of one artifact is compared with the reference, or several artifacts with the
    first of them. Exits with 1 if a tolerance or --max-drop is exceeded, 3 if a runtime could not
    be verified or there are too few samples for a verdict.
    """
    import toolkit
    from toolkit.cli import output
    from toolkit.cli.accuracy import print_accuracy
    from toolkit.core.gates import CheckOutcome
    from toolkit.sources.labelled_data import holds_inputs

    asked = max_drop is not None or per_class or layers or inputs is not None
    with output.progress() as progress:
        kept: VerifyOptions = {
            "runtimes": options.runtimes(runtime, provider, device),
            "device": device,
            "data": data,
            "data_dir": data_dir,
            "data_settings": options.settings(data_option or [], "--data-option"),
            "threads": threads,
            "timeout_s": timeout,
            "progress": progress,
        }
        if len(artifacts) == 1 and not asked and not holds_inputs(data):
            done = toolkit.verify(artifacts[0], **kept)
            _show(done, json)
            return
        more: VerifyOptions = {
            **kept,
            "inputs": inputs,
            "max_drop": max_drop,
            "per_class": per_class,
            "layers": layers,
        }
        compared = toolkit.verify(artifacts, **more)
    if json:
        output.print_json(compared.to_json())
    else:
        print_accuracy(compared)
    raise typer.Exit(
        {CheckOutcome.PASSED: 0, CheckOutcome.FAILED: 1, CheckOutcome.UNKNOWN: 3}[compared.gate]
    )


def _show(done: Verification, json: bool) -> None:
    from toolkit.cli import output

    if json:
        output.print_json(done.to_json())
    else:
        _print(done)
    if not done.passed:
        raise typer.Exit(1 if done.broken else 3)


def _print(done: Verification) -> None:
    from toolkit.cli import output

    console = output.stdout()
    agreement = ("top-1 agreement",) if "accuracy" in done.scores else ()
    columns = (*done.scores, *agreement, "max abs", "max rel")
    table = output.table(
        f"Verified on {done.samples} test rows of {done.data}",
        "runtime",
        *columns,
        "",
        numeric=columns,
    )
    table.add_row(f"{done.reference} (reference)", *_scores(done.scores))
    for row in done.rows:
        if row.parity is None or row.scores is None:
            table.add_row(row.runtime, *["-"] * len(columns), row.status)
            continue
        table.add_row(
            row.runtime,
            *_scores(row.scores),
            *([] if row.agreement is None else [f"{row.agreement:.2%}"]),
            output.scientific(row.parity.max_abs),
            output.scientific(row.parity.max_rel),
            "passed" if row.passed else "FAILED",
        )
    console.print(table)
    console.out(
        f"Tolerance: |difference| <= {done.tolerance['absolute']:g} + "
        f"{done.tolerance['relative']:g} x max |reference|"
        + (f"; top-1 agreement >= {done.tolerance['agreement']:.1%}." if agreement else ".")
    )
    for row in done.rows:
        if row.reason:
            console.out(f"{row.runtime}: {row.reason}")


def _scores(scores: Mapping[str, float]) -> list[str]:
    """Format scores in the order of the columns."""
    return [
        f"{value:.4f}" if name == "accuracy" else f"{value:.6f}" for name, value in scores.items()
    ]

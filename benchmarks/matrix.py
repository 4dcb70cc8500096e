"""`make matrix`: every family exported to every target, with what the proof of each found."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import toolkit
from models import FAMILIES, builder
from models.initial import fresh_weights
from toolkit.core.artifact import Checkpoint
from toolkit.core.errors import ToolkitError

COLUMNS: Mapping[str, tuple[str, str | None]] = {
    "onnx": ("onnx", None),
    "onnx from Keras": ("onnx", "savedmodel"),
    "torch-export": ("torch-export", None),
    "aotinductor": ("aotinductor", None),
    "openvino": ("openvino", None),
    "savedmodel": ("savedmodel", None),
    "litert": ("litert", None),
    "tensorrt-rtx": ("tensorrt-rtx", None),
}
"""Export targets, and the options of each."""

PAGE = """# Every model to every target

Printed by `make matrix`: fresh weights, batch norms with the statistics of a trained model. A cell
has the weights that are explained of all there are, and the largest error of an output against the
same model in float64, in parts of the largest output; in brackets that of torch in float32.
An engine that no runtime here can run has not run: its outputs are those of the ONNX graph that it
was made from.

"""


def main(arguments: Sequence[str]) -> int:
    """Prints the table, and writes it to the files that are named; 1 when an export failed."""
    table = Table(title="Weights explained of all, and outputs apart from float64, relatively")
    for column in ("model", *COLUMNS):
        table.add_column(column)
    rows = []
    for model in FAMILIES.names():
        with tempfile.TemporaryDirectory() as place:
            checkpoint = fresh(model, Path(place) / "checkpoint")
            cells = [
                cell(checkpoint, target, via, Path(place) / column.replace(" ", "-"))
                for column, (target, via) in COLUMNS.items()
            ]
        rows.append([model, *cells])
        table.add_row(*rows[-1])
        Console(stderr=True).print(*rows[-1], sep=", ", markup=False)
    Console(width=max(120, Console().width)).print(table)
    for path in arguments:
        Path(path).write_text(PAGE + markdown(rows))
    return int(any("failed" in text for row in rows for text in row))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [["model", *COLUMNS], ["---"] * (1 + len(COLUMNS)), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def fresh(model: str, place: Path) -> Checkpoint:
    """Fresh weights, statistics of batch norms near those of a trained model."""
    family = FAMILIES.create(model)
    spec = family.spec("torch")
    maker = builder(spec, "torch")
    shapes = {name: array.shape for name, array in maker.weights(maker.build(spec)).items()}
    weights = dict(fresh_weights(shapes, 0, family.initialisation))
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        if name.endswith("running_mean"):
            weights[name] = rng.normal(0, 0.1, shape).astype(np.float32)
        if name.endswith("running_var"):
            weights[name] = rng.uniform(0.5, 2, shape).astype(np.float32)
    place.mkdir()
    return Checkpoint.save(
        place, spec=spec, weights=weights, seed=0, epoch=0, metrics={}, training={}
    )


def cell(checkpoint: Checkpoint, target: str, via: str | None, out: Path) -> str:
    try:
        done = toolkit.export(checkpoint.directory, to=target, via=via, out=out)
    except ToolkitError as error:
        return f"failed: {error.problem}"
    worst = max(
        (case.judgement for case in done.outputs.cases), key=lambda found: found.relative or 0
    )
    assert worst.reference_error is not None
    assert worst.scale
    own = worst.reference_error / worst.scale
    told = "; has not run" if done.outputs.not_run else ""
    found = f"{done.weights.explained} of {done.weights.total}, {worst.relative:.0e} ({own:.0e})"
    return found + told


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`make matrix`: every family exported to every target, with what the proof of each found."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import toolkit
from exporters import EXPORTERS
from models import FAMILIES, builder
from models.initial import fresh_weights
from toolkit.core.artifact import Checkpoint
from toolkit.core.errors import ToolkitError


def main() -> int:
    """Prints the table; 1 when an export failed."""
    targets = EXPORTERS.names()
    table = Table(
        title="Weights explained of all, and outputs apart from the reference, relatively"
    )
    for column in ("model", *targets):
        table.add_column(column)
    failed = False
    for model in FAMILIES.names():
        with tempfile.TemporaryDirectory() as place:
            checkpoint = fresh(model, Path(place) / "checkpoint")
            cells = [cell(checkpoint, target, Path(place) / target) for target in targets]
        failed |= any(cell.startswith("failed") for cell in cells)
        table.add_row(model, *cells)
        Console(stderr=True).print(model, *cells, sep=", ", markup=False)
    Console(width=max(120, Console().width)).print(table)
    return int(failed)


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


def cell(checkpoint: Checkpoint, target: str, out: Path) -> str:
    try:
        done = toolkit.export(checkpoint.directory, to=target, out=out)
    except ToolkitError as error:
        return f"failed: {error.problem}"
    worst = done.outputs.worst.judgement
    told = "; has not run" if done.outputs.not_run else ""
    return f"{done.weights.explained} of {done.weights.total}, {worst.relative:.0e}{told}"


if __name__ == "__main__":
    sys.exit(main())

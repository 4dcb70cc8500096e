"""`make bench`: the figures that the toolkit promises, measured on this machine in one run.

Ratios hold on any machine that is quiet; times are this machine's. With names of groups, such as
`make bench ONLY="harness agreement"`, only these.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import agreement
import calibration_memory
import data
import disturbance
import export_cost
import harness
import intervals
import ode
import passes
import size
import startup
import training
from figure import Figure, Place
from rich.console import Console
from rich.table import Table

import toolkit

GROUPS: dict[str, Callable[[Place], Iterator[Figure]]] = {
    "startup": startup.figures,
    "data": data.figures,
    "harness": harness.figures,
    "size": size.figures,
    "agreement": agreement.figures,
    "disturbance": disturbance.figures,
    "coverage": intervals.figures,
    "training": training.figures,
    "ode": ode.figures,
    "passes": passes.figures,
    "export-cost": export_cost.figures,
    "calibration": calibration_memory.figures,
}


def main(asked: list[str]) -> int:
    """Prints the table; 1 when a promise was not kept, 2 for a group that is none."""
    console = Console(width=max(140, Console().width))
    if unknown := set(asked) - set(GROUPS):
        console.print(f"No group {', '.join(unknown)}; there are {', '.join(GROUPS)}.")
        return 2
    table = Table(title="Figures of the toolkit", title_justify="left")
    for column in ("figure", "found", "promised", ""):
        table.add_column(column)
    missed = False
    with tempfile.TemporaryDirectory() as directory:
        place = Place(directory=Path(directory))
        toolkit.train("lenet", data="digits", out=place.directory / "lenet")
        toolkit.export(place.directory / "lenet", to="onnx", out=place.artifact)
        for name in asked or GROUPS:
            for figure in GROUPS[name](place):
                kept = "kept" if figure.kept else "MISSED"
                table.add_row(figure.what, figure.found, figure.promised, kept)
                missed |= not figure.kept
                console.print(f"{figure.what}: {figure.found}, {kept}", markup=False)
    console.print(table)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`make bench`: the figures that the toolkit promises, measured on this machine in one run.

Ratios hold on any machine that is quiet; times are this machine's.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

import toolkit
from toolkit.core.measurement import Result, Scope
from toolkit.measuring.statistics import percentile
from toolkit.measuring.summary import compare_rows

TOOLKIT = Path(sys.executable).with_name("toolkit")
STARTS = 20


@dataclass(frozen=True, kw_only=True)
class Figure:
    what: str
    found: str
    promised: str
    kept: bool


def main() -> int:
    """Prints the table; 1 when a promise was not kept."""
    console = Console(width=max(120, Console().width))
    table = Table(title="Figures of the toolkit", title_justify="left")
    for column in ("figure", "found", "promised", ""):
        table.add_column(column)
    missed = False
    for figure in (*start_up(), *harness()):
        table.add_row(
            figure.what, figure.found, figure.promised, "kept" if figure.kept else "MISSED"
        )
        missed |= not figure.kept
    console.print(table)
    return int(missed)


def start_up() -> Iterator[Figure]:
    """`toolkit --help` beside an interpreter that does nothing, in turn."""
    commands = {"python -c pass": [sys.executable, "-c", "pass"], "toolkit --help": [TOOLKIT, "-h"]}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(STARTS):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            seconds[name].append(time.perf_counter() - began)
    bare, helped = (statistics.median(seconds[name]) for name in commands)
    yield Figure(
        what="toolkit --help (beside python -c pass)",
        found=f"{helped:.3f} s ({bare:.3f} s)",
        promised="at most 0.2 s",
        kept=helped <= 0.2,
    )


def harness() -> Iterator[Figure]:
    """The null runtime's row, and ONNX Runtime's ratio to torch, from one bench."""
    with tempfile.TemporaryDirectory() as place:
        toolkit.train("lenet", data="digits", out=f"{place}/lenet")
        toolkit.export(f"{place}/lenet", to="onnx", out=f"{place}/lenet-onnx")
        result = toolkit.bench(
            f"{place}/lenet-onnx",
            runtimes=["torch", "onnxruntime", "null"],
            batches=[1],
            scopes=["forward"],
            out=place,
        )
    yield _null_cost(result)
    yield _speed_up(result)


def _null_cost(result: Result) -> Figure:
    measurement = result.rows[2].measurement(Scope.FORWARD)
    median = percentile(measurement.samples, 50.0) if measurement else None
    return Figure(
        what="harness around one forward of the null runtime, median",
        found=f"{median:.0f} ns" if median else str(result.rows[2].reason),
        promised="at most 1,000 ns",
        kept=median is not None and median <= 1000,
    )


def _speed_up(result: Result) -> Figure:
    torch, ort, _ = result.rows
    ratio = compare_rows(ort, torch, Scope.FORWARD)
    return Figure(
        what="LeNet forward at batch 1: onnxruntime against torch eager",
        found=(
            f"{1 / ratio.value:.2f} times faster "
            f"({1 / ratio.interval[1]:.2f} to {1 / ratio.interval[0]:.2f})"
            if ratio
            else f"{torch.reason} {ort.reason}"
        ),
        promised="at least 3 times",
        kept=ratio is not None and 1 / ratio.value >= 3,
    )


if __name__ == "__main__":
    sys.exit(main())

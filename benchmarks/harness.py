"""What the harness costs, and what it finds between two runtimes."""

from __future__ import annotations

from collections.abc import Iterator

from figure import Figure, Place

import toolkit
from toolkit.core.measurement import Result, Scope
from toolkit.measuring.figures.statistics import percentile
from toolkit.measuring.figures.summary import compare_rows


def figures(place: Place) -> Iterator[Figure]:
    """The null runtime's row, and ONNX Runtime's ratio to torch, from one bench."""
    result = toolkit.bench(
        place.artifact,
        runtimes=["torch", "onnxruntime", "null"],
        batches=[1],
        scopes=["forward"],
        out=place.results,
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

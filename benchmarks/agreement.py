"""The toolkit's OpenVINO row beside OpenVINO's own benchmark_app, in turn."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from figure import Figure, Place

import toolkit
from toolkit.core.measurement import Scope
from toolkit.measuring.figures.summary import median_of
from toolkit.measuring.machine.environment import available_cores
from toolkit.measuring.timing.engine import Procedure

BENCHMARK_APP = Path(sys.executable).with_name("benchmark_app")
TURNS = 7
SECONDS = 3
NANOSECONDS = {"us": 1e3, "ms": 1e6, "s": 1e9}


def figures(place: Place) -> Iterator[Figure]:
    """Medians over the turns of what each says its median is."""
    for model, batch in (("lenet", 200), ("vgg16", 16)):
        ours, theirs = _in_turn(place.onnx(batch, model))
        apart = statistics.median(a / b for a, b in zip(ours, theirs, strict=True)) - 1
        yield Figure(
            what=f"OpenVINO beside benchmark_app, {model} at batch {batch}, {TURNS} turns",
            found=f"{apart:+.1%} ({_times(ours, theirs)})",
            promised="within 3 %",
            kept=abs(apart) <= 0.03,
        )
    ours, theirs = _in_turn(place.onnx(1))
    apart_us = statistics.median(a - b for a, b in zip(ours, theirs, strict=True)) / 1e3
    yield Figure(
        what=f"OpenVINO beside benchmark_app, LeNet at batch 1, {TURNS} turns",
        found=f"{apart_us:+.1f} µs ({_times(ours, theirs)})",
        promised="within 5 µs",
        kept=abs(apart_us) <= 5,
    )


def _in_turn(model: Path) -> tuple[list[float], list[float]]:
    """Medians in nanoseconds, ours and theirs."""
    pairs = [(_ours(model), _theirs(model)) for _ in range(TURNS)]
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]


def _ours(model: Path) -> float:
    result = toolkit.bench(
        model,
        runtimes=["openvino"],
        scopes=["forward"],
        procedure=Procedure(max_seconds=SECONDS, target_ci=1e-6),
        out=model.parent / "results",
    )
    median = median_of(result.rows[0], Scope.FORWARD)
    if median is None:
        raise RuntimeError(result.rows[0].reason)
    return median


def _theirs(model: Path) -> float:
    command = [
        BENCHMARK_APP, "-m", model, "-api", "sync", "-hint", "none", "-nstreams", "1",
        "-nthreads", str(available_cores()), "-infer_precision", "f32", "-t", str(SECONDS),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Median:\s+([\d.]+) (us|ms|s)\b", done.stdout)
    if found is None:
        raise RuntimeError(f"benchmark_app printed no median: {done.stdout[-500:]}")
    return float(found[1]) * NANOSECONDS[found[2]]


def _times(ours: list[float], theirs: list[float]) -> str:
    medians = (statistics.median(side) / 1e3 for side in (ours, theirs))
    return " and ".join(f"{median:,.1f} µs" for median in medians)

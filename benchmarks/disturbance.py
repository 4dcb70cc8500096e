"""Two equal rows while a process keeps one core busy during half of the run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import final

from figure import Figure, Place

import toolkit
from toolkit.core.progress import Progress
from toolkit.measuring.figures.comparison import Comparison
from toolkit.measuring.figures.statistics import Verdict
from toolkit.measuring.timing.engine import Procedure

RUNS = 10
SECONDS = 4.0
PROCESSES = 6


def figures(place: Place) -> Iterator[Figure]:
    warned, verdicts = 0, []
    for _ in range(RUNS):
        comparison = _compare(place)
        warned += any("other work took" in warning for warning in comparison.warnings)
        (pair,) = comparison.pairs
        verdicts.append(pair.ratio.verdict if pair.ratio else Verdict.UNCLEAR)
    named = sum(verdict in (Verdict.FASTER, Verdict.SLOWER) for verdict in verdicts)
    yield Figure(
        what=f"one core busy for half of {SECONDS:g} s, {RUNS} runs: warned, and equal rows named",
        found=f"{warned} warned, {named} named",
        promised=f"{RUNS} warned, 0 named",
        kept=warned == RUNS and named == 0,
    )


def _compare(place: Place) -> Comparison:
    model = place.onnx(200)
    with BusyHalf() as busy:
        return toolkit.compare(
            model,
            model,
            scopes=["forward"],
            procedure=Procedure(max_seconds=SECONDS, target_ci=1e-6, processes=PROCESSES),
            out=place.results,
            progress=busy,
        )


@final
class BusyHalf(Progress):
    """A process that only runs, while the second half of the processes of each row is measured."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        if task.startswith(f"open {PROCESSES // 2 + 1} of") and done == total:
            self._process = subprocess.Popen([sys.executable, "-c", "while True: pass"])

    def note(self, text: str) -> None:
        pass

    def __enter__(self) -> BusyHalf:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

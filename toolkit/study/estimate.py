"""Estimate of the time of cells, from similar cells that are done or from their limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.measuring.timing.engine import Procedure
from toolkit.study.matrix import Cell
from toolkit.study.store import Outcome, State

OPENING_S = 2.0  # to import and open a runtime in a new process
TRAINER_S = 10.0  # to import a trainer in a new process and compile its first epoch
SCOPES = 2  # measured by default
SECONDS = 60.0  # default max_seconds of bench-training, for all trainers of a batch
BRIEF = {"export": 8.0, "calibrate": 12.0, "verify": 10.0}  # seconds, for a small model


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimated time of a set of cells.

    `seconds` is the sum over the cells that can be estimated, `unknown` the number of the others.
    """

    seconds: float
    unknown: int


def estimate(cells: Iterable[Cell], done: Sequence[Outcome]) -> Estimate:
    """Estimate the time of cells, from the outcomes `done` of other cells.

    Outcomes of cells that failed or were skipped are ignored.
    """
    rates = _rates(done)
    known = [_seconds(cell, rates) for cell in cells]
    return Estimate(
        seconds=sum(one for one in known if one is not None),
        unknown=sum(one is None for one in known),
    )


ALIKE = (("model", "trainer"), ("model",))
"""Dimensions to compare: cells of a step that are equal in these take similar times. Best first."""


def _kind(step: str, dimensions: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return repr((step, names, [dimensions.get(name) for name in names]))


def _rates(done: Iterable[Outcome]) -> dict[str, float]:
    """Return the median seconds of each kind of cell, divided by the dimension `epochs`, if any.

    Cells that depend on a training inherit its `epochs`, and are divided by it as well.
    """
    found: dict[str, list[float]] = {}
    for one in done:
        if one.state is State.DONE:
            seconds = one.seconds / _size(one.dimensions.get("epochs", 1))
            for names in ALIKE:
                found.setdefault(_kind(one.step, one.dimensions, names), []).append(seconds)
    return {kind: float(np.median(seconds)) for kind, seconds in found.items()}


def _seconds(cell: Cell, rates: Mapping[str, float]) -> float | None:
    """Estimate the time of a cell from others of the same kind, or else from its limits.

    Return None if neither is known.
    """
    for names in ALIKE:
        kind = _kind(cell.step, cell.dimensions, names)
        if kind in rates:
            return rates[kind] * _size(cell.dimensions.get("epochs", 1))
    return _limit(cell)


def _size(epochs: object) -> float:
    return float(epochs) if isinstance(epochs, int | float) else 1.0


def _limit(cell: Cell) -> float | None:
    """Return the time limit or the usual time of a cell, in seconds; None for a training."""
    values = cell.values
    if cell.step == "bench":
        scopes = len(values["scopes"]) if "scopes" in values else SCOPES
        opening_s = OPENING_S * len(values.get("runtimes", ("torch", "onnxruntime", "openvino")))
        return _measuring_s(values, Procedure().max_seconds, opening_s, scopes)
    if cell.step == "bench-training":
        return _measuring_s(values, SECONDS, TRAINER_S * len(values["trainers"]), 1)
    return BRIEF.get(cell.step)


def _measuring_s(
    values: Mapping[str, Any], max_seconds: float, opening_s: float, scopes: int
) -> float:
    """Return the longest time of a benchmark. `opening_s` is that to open one process per row."""
    given = {n: values[n] for n in ("max_seconds", "processes", "runs") if n in values}
    procedure = Procedure(**{"max_seconds": max_seconds, **given})
    return scopes * procedure.max_seconds + procedure.plan(opening_s, scopes) * opening_s

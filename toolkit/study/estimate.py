"""How long cells take: by their limits, or by what others of their kind took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.measuring.engine import Procedure
from toolkit.study.matrix import Cell
from toolkit.study.store import Outcome, State

OPENING_S = 2.0  # of a runtime in a new process, with its import
TRAINER_S = 10.0  # of a trainer in a new process, with its import and the compilation
SCOPES = 2  # that are measured unless told
SECONDS = 60.0  # of the trainers of a batch, unless told
BRIEF = {"export": 8.0, "calibrate": 12.0, "verify": 10.0}  # about what a small model takes


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds of those cells of which something is known, and how many others there are."""

    seconds: float
    unknown: int


def estimate(cells: Iterable[Cell], done: Sequence[Outcome]) -> Estimate:
    """Estimate the time of cells that are still to do.

    `done` are the outcomes of the others, of failed ones as well.
    """
    rates = _rates(done)
    known = [_seconds(cell, rates) for cell in cells]
    return Estimate(
        seconds=sum(one for one in known if one is not None),
        unknown=sum(one is None for one in known),
    )


ALIKE = (("model", "trainer"), ("model",))
"""The dimensions that cells of a step share if one tells how long the other takes, best first."""


def _kind(step: str, dimensions: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return repr((step, names, [dimensions.get(name) for name in names]))


def _rates(done: Iterable[Outcome]) -> dict[str, float]:
    """Return the median seconds of each kind of cell, by the epoch where it trains."""
    found: dict[str, list[float]] = {}
    for one in done:
        if one.state is State.DONE:
            seconds = one.seconds / _size(one.dimensions.get("epochs", 1))
            for names in ALIKE:
                found.setdefault(_kind(one.step, one.dimensions, names), []).append(seconds)
    return {kind: float(np.median(seconds)) for kind, seconds in found.items()}


def _seconds(cell: Cell, rates: Mapping[str, float]) -> float | None:
    """Return what others of the same kind took, else what the cell's limits come to, else None."""
    for names in ALIKE:
        kind = _kind(cell.step, cell.dimensions, names)
        if kind in rates:
            return rates[kind] * _size(cell.dimensions.get("epochs", 1))
    return _limit(cell)


def _size(epochs: object) -> float:
    return float(epochs) if isinstance(epochs, int | float) else 1.0


def _limit(cell: Cell) -> float | None:
    values = cell.values
    if cell.step == "bench":
        scopes = len(values["scopes"]) if "scopes" in values else SCOPES
        given = ("max_seconds", "processes", "runs")
        procedure = Procedure(**{name: values[name] for name in given if name in values})
        opening_s = OPENING_S * len(values.get("runtimes", ("torch", "onnxruntime", "openvino")))
        processes = procedure.plan(opening_s, scopes)
        return float(scopes * procedure.max_seconds + processes * opening_s)
    if cell.step == "bench-training":
        given = ("max_seconds", "processes", "runs")
        usual = {"max_seconds": SECONDS, **{name: values[name] for name in given if name in values}}
        procedure = Procedure(**usual)
        opening_s = TRAINER_S * len(values["trainers"])
        return float(procedure.max_seconds + procedure.plan(opening_s, 1) * opening_s)
    return BRIEF.get(cell.step)

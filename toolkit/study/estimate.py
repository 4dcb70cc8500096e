"""How long cells take: by their limits, or by what others of their kind took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.measuring.engine import Procedure
from toolkit.study.matrix import Cell
from toolkit.study.store import Outcome, State

OPENING_S = 2.0  # of a runtime in a new process, with its import
SCOPES = 2  # that are measured unless told
SECONDS = 60.0  # of the trainers of a batch, unless told
BRIEF = {"export": 8.0, "calibrate": 12.0, "verify": 10.0}  # about what a small model takes


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds of those cells of which something is known, and how many others there are."""

    seconds: float
    unknown: int


def estimate(cells: Iterable[Cell], done: Sequence[Outcome]) -> Estimate:
    """Of cells that are still to do, where `done` are those that are not, failed ones as well."""
    known = [_seconds(cell, done) for cell in cells]
    return Estimate(
        seconds=sum(one for one in known if one is not None),
        unknown=sum(one is None for one in known),
    )


def _seconds(cell: Cell, done: Sequence[Outcome]) -> float | None:
    """The median of those of the same step and model, with the same trainer if there are any, by
    the epoch where it trains; else what its limits come to, None without any."""
    for keys in (("model", "trainer"), ("model",)):
        alike = [
            one.seconds / _size(one.dimensions.get("epochs", 1))
            for one in done
            if (one.step, one.state) == (cell.step, State.DONE)
            and all(one.dimensions.get(key) == cell.dimensions.get(key) for key in keys)
        ]
        if alike:
            return float(np.median(alike)) * _size(cell.dimensions.get("epochs", 1))
    return _limit(cell)


def _size(epochs: object) -> float:
    return float(epochs) if isinstance(epochs, int | float) else 1.0


def _limit(cell: Cell) -> float | None:
    values = cell.values
    if cell.step == "bench":
        scopes = len(values["scopes"]) if "scopes" in values else SCOPES
        usual = Procedure()
        limit = values.get("max_seconds", usual.max_seconds)
        parts = values.get("processes") or (1 if "runs" in values else usual.parts)
        rows = len(values.get("runtimes", ("torch", "onnxruntime", "openvino")))
        return float(scopes * limit + parts * rows * OPENING_S)
    if cell.step == "bench-training":
        return float(values.get("max_seconds", SECONDS) + len(values["trainers"]) * 5 * OPENING_S)
    return BRIEF.get(cell.step)

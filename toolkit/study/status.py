"""Status of a study, read from its directory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from toolkit.core.codec import encode
from toolkit.core.documents import Json
from toolkit.study.store import State, Store


def status_of(directory: Path) -> Json:
    """Return all cells of a study with their states, as a JSON object.

    Raises SourceError if the directory is not a study, IntegrityError if `study.json` was altered.
    """
    store = Store(directory=directory)
    study = store.read()
    cells = []
    for cell in study.cells:
        outcome = store.outcome(cell.id)
        cells.append(
            {
                **encode(cell),
                "state": State.TO_DO if outcome is None else outcome.state,
                "seconds": outcome and outcome.seconds,
                "reason": store.damage(cell.id) if outcome is None else outcome.reason,
                "machine": outcome and outcome.machine,
            }
        )
    return {
        "schema": "toolkit.study-status/1",
        "name": study.name,
        "title": study.title,
        "quick": study.quick,
        "stands_in": study.stands_in,
        "counts": dict(Counter(cell["state"] for cell in cells)),
        "cells": cells,
    }

"""How often a row is called faster or slower than itself, and a true difference is missed."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from figure import Figure, Place

import toolkit
from toolkit.core.measurement import Scope
from toolkit.measuring.engine import Procedure
from toolkit.measuring.statistics import Ratio, Verdict
from toolkit.measuring.summary import compare_rows

COMPARISONS = 100
PROCEDURE = Procedure(max_seconds=2, target_ci=1e-6)  # all of the two seconds
BATCH = 200
SHARE = 0.05
PLUGINS = Path(__file__).with_name("plugins")
sys.path.append(str(PLUGINS))  # before this process looks for plugins


def figures(place: Place) -> Iterator[Figure]:
    found = _verdicts(lambda: _against_itself(place))
    named = found[Verdict.FASTER] + found[Verdict.SLOWER]
    yield Figure(
        what=f"A against A, {COMPARISONS} comparisons of 2 s: named FASTER or SLOWER",
        found=f"{named} ({_counts(found)})",
        promised="at most 1",
        kept=named <= 1,
    )
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(PLUGINS), os.environ.get("PYTHONPATH")))
    )
    found = _verdicts(lambda: _against_delayed(place))
    yield Figure(
        what=f"a busy wait of 5 % after each pass, {COMPARISONS} comparisons of 2 s: found",
        found=f"{found[Verdict.SLOWER]} ({_counts(found)})",
        promised="at least 95",
        kept=found[Verdict.SLOWER] >= 95,
    )


def _verdicts(compare: Callable[[], Ratio | None]) -> Counter[Verdict]:
    found: Counter[Verdict] = Counter()
    for _ in range(COMPARISONS):
        ratio = compare()
        found[ratio.verdict if ratio else Verdict.UNCLEAR] += 1
    return found


def _against_itself(place: Place) -> Ratio | None:
    model = place.onnx(BATCH)
    (pair,) = toolkit.compare(
        model, model, scopes=["forward"], procedure=PROCEDURE, out=place.results
    ).pairs
    return pair.ratio


def _against_delayed(place: Place) -> Ratio | None:
    result = toolkit.bench(
        place.onnx(BATCH),
        runtimes=["onnxruntime", "delayed"],
        scopes=["forward"],
        tuning={"delayed": {"share": str(SHARE)}},
        procedure=PROCEDURE,
        out=place.results,
    )
    return compare_rows(result.rows[1], result.rows[0], Scope.FORWARD)


def _counts(found: Counter[Verdict]) -> str:
    return ", ".join(f"{verdict} {found[verdict]}" for verdict in Verdict if found[verdict])

"""How candidates stand, and what rows can tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.artifact import Format
from toolkit.core.gates import CheckOutcome
from toolkit.core.measurement import Agreement, Block, Measurement, Row, Scope, Status
from toolkit.optimizing.accuracy import Verdict, too_few
from toolkit.optimizing.candidates import openers
from toolkit.optimizing.rounds import OBJECTIVES, CandidateResult, pareto, updated_result
from toolkit.parity.paired import accuracy_drop
from toolkit.sources.labelled_data import LabelledRows

CANDIDATE = openers(Format.ONNX, 2, frozenset(), "latency", "cpu")[0]


def rows(count: int) -> LabelledRows:
    return LabelledRows(feeds={}, count=count, targets=np.arange(count) % 2, description="rows")


@given(st.integers(1, 20_000), st.floats(0.05, 50))
def test_too_few_rows_are_those_of_which_equal_answers_do_not_pass(
    count: int, max_drop: float
) -> None:
    right = np.ones(count, bool)
    passes = accuracy_drop(right, right).gate(max_drop) is CheckOutcome.PASSED
    assert (too_few(rows(count), max_drop) is None) == passes


def test_as_many_rows_as_are_named_are_enough() -> None:
    told = too_few(rows(360), 0.5)
    assert told is not None
    needed = int(told.partition("Give ")[2].split()[0])
    assert too_few(rows(needed), 0.5) is None
    assert too_few(rows(needed - 20), 0.5) is not None


def candidate_result(number: int, ratio: float, drop: float, peak: int) -> CandidateResult:
    row = Row(
        runtime="onnxruntime", artifact=str(number), artifact_digest="", artifact_bytes=number,
        batch=1, status=Status.OK, precision_requested="float32", peak_rss_bytes=peak,
    )  # fmt: skip
    candidate = CANDIDATE.__class__(
        form=CANDIDATE.form, runtime="onnxruntime", threads=1, tuning={"n": str(number)}
    )
    verdict = Verdict(gate=CheckOutcome.PASSED, why="", figures={"drop": {"value": drop}})
    return CandidateResult(
        candidate=candidate, row=row, ratio=ratio, typical=ratio, verdict=verdict
    )


figures = st.tuples(st.floats(0.1, 2), st.sampled_from([-0.2, 0.0, 0.1, 0.4]), st.integers(1, 5))


@given(st.lists(figures, min_size=1, max_size=12))
def test_none_is_better_than_one_of_the_front(points: list[tuple[float, float, int]]) -> None:
    found = [candidate_result(number, *point) for number, point in enumerate(points)]
    front = pareto(found)
    own = {
        s.candidate.name: (p[0], max(0.0, p[1]), p[2]) for s, p in zip(found, points, strict=True)
    }

    def better(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    assert front
    for name, figures in own.items():
        beaten = any(better(other, figures) for other in own.values())
        assert (name in front) != beaten


def measured(runs: int, nanoseconds: int, processes: int = 1) -> Row:
    """So many rounds of one run each, shared among processes."""
    blocks = tuple(
        Block(
            round=number,
            process=number * processes // runs,
            lead=np.empty(0, np.int64),
            samples=np.array([nanoseconds + number]),
            rss_bytes=0,
        )
        for number in range(runs)
    )
    forward = Measurement(
        scope=Scope.FORWARD, warmup=np.empty(0, np.int64), settled=True, disturbance=0.0,
        blocks=blocks,
    )  # fmt: skip
    row = candidate_result(1, 1.0, 0.0, 1).row
    assert row is not None
    return replace(
        row, measurements=(forward,), parity=Agreement(passed=True, max_abs=0.0, max_rel=0.0)
    )


@pytest.mark.parametrize(
    ("runs", "processes", "rough"), [(5, 1, True), (40, 1, True), (40, 5, False)]
)
def test_rows_without_an_interval_still_tell_something(
    runs: int, processes: int, rough: bool
) -> None:
    beside, other = (
        CandidateResult(candidate=CANDIDATE, ratio=1.0, typical=1.0),
        candidate_result(2, 1.0, 0.0, 1),
    )
    first, row = measured(runs, 10**9, processes), measured(runs, 5 * 10**8, processes)
    found = updated_result(other, row, first, beside)
    assert found.out is None
    assert found.ratio == pytest.approx(0.5, rel=1e-3)
    assert found.typical == pytest.approx(0.5, rel=1e-3)
    assert (found.interval is None) is rough
    assert (found.bounds[1] / found.bounds[0] > 1.2) is rough
    assert (found.to_json()["ci95"] is None) is rough


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_was_not_measured_is_never_best(objective: str) -> None:
    assert CandidateResult(candidate=CANDIDATE).value(objective) == float("inf")


def test_objectives_are_made_small() -> None:
    one = candidate_result(7, 0.5, 0.0, 3)
    assert one.value("latency") == one.value("throughput") == 0.5
    assert one.value("memory") == 3
    assert one.value("size") == 7

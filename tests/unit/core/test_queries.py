"""What a load scenario leaves behind, written and read again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from toolkit.core.codec import decode, encode
from toolkit.core.measurement import Row, Status
from toolkit.core.queries import Scenario, Served, Window

TIMES = ("lead", "scheduled", "started", "finished")


def window(asked: int, answered: int, qps: float | None = 20.5) -> Window:
    times = np.arange(answered, dtype=np.int64) * 10**9
    return Window(
        round=3,
        qps=qps,
        lead=np.array([7, 8], np.int64),
        scheduled=np.arange(asked, dtype=np.int64) * 10**9,
        started=times + 1,
        finished=times[::-1] + 2,
    )


def row(served: Served | None) -> Row:
    return Row(
        runtime="null",
        artifact="a",
        artifact_digest="d",
        batch=1,
        status=Status.OK,
        precision_requested="float32",
        served=served,
    )


def assert_same(mine: Window, theirs: Window) -> None:
    assert (mine.round, mine.qps) == (theirs.round, theirs.qps)
    for name in TIMES:
        assert getattr(theirs, name).dtype == np.int64
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


@pytest.mark.parametrize("alone", [None, window(2, 2, None)])
@pytest.mark.parametrize("windows", [(), (window(5, 5), window(5, 0))])
def test_a_row_comes_back_as_it_was(alone: Window | None, windows: tuple[Window, ...]) -> None:
    served = Served(
        scenario=Scenario.SERVER,
        concurrency=3,
        warmup=np.array([1, 2], np.int64),
        settled=False,
        windows=windows,
        p99_bound_ns=None if alone is None else 5,
        alone=alone,
    )
    text = json.dumps(encode(row(served)), allow_nan=False)
    back = decode(json.loads(text), Row, "a test").served
    assert back is not None
    assert (back.scenario, back.concurrency, back.settled, back.p99_bound_ns) == (
        Scenario.SERVER,
        3,
        False,
        served.p99_bound_ns,
    )
    assert back.warmup.dtype == np.int64
    assert (back.alone is None) is (alone is None)
    for mine, theirs in zip(windows, back.windows, strict=True):
        assert_same(mine, theirs)
    if alone is not None and back.alone is not None:
        assert_same(alone, back.alone)


def test_a_row_without_a_scenario_has_none() -> None:
    assert decode(encode(row(None)), Row, "a test").served is None


def test_a_window_counts_its_queries() -> None:
    assert (window(5, 3).asked, window(5, 3).answered) == (5, 3)
    assert window(5, 3).elapsed_ns == 2 * 10**9 + 2
    assert window(5, 0).elapsed_ns == 0

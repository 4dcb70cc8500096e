"""Cores on which blocks begin."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from toolkit.measuring.timing.placement import Turns, begin_on, placement_cores
from toolkit.measuring.workers.prctl import LINUX

pytestmark = pytest.mark.skipif(not LINUX, reason="moves threads on Linux only")


def write_nodes(place: Path, *lists: str) -> Path:
    for number, text in enumerate(lists):
        node = place / f"node{number}"
        node.mkdir()
        (node / "cpulist").write_text(f"{text}\n")
    return place


@pytest.mark.parametrize(
    ("lists", "cpus", "expected"),
    [
        (("0-3,8", "4-7"), {1, 2, 5, 8}, (1, 2, 8)),
        (("0-3,8", "4-7"), {4, 7}, (4, 7)),
        (("", "0-3", "4-7"), {1, 5}, (1,)),  # a node with memory alone
        ((), {0, 3}, (0, 3)),
        (("words", "0-1", "2-3"), {0, 3}, (0,)),
    ],
)
def test_cores_are_those_of_one_node(
    tmp_path: Path, lists: tuple[str, ...], cpus: set[int], expected: tuple[int, ...]
) -> None:
    assert placement_cores(frozenset(cpus), write_nodes(tmp_path, *lists)) == expected


def test_cores_of_this_machine_are_allowed() -> None:
    found = placement_cores(None)
    assert found
    assert {*found} <= os.sched_getaffinity(0)


def test_a_thread_is_moved_and_not_pinned() -> None:
    allowed = os.sched_getaffinity(0)
    for core in sorted(allowed):
        begin_on(core)
        assert ctypes.CDLL(None).sched_getcpu() == core
        assert os.sched_getaffinity(0) == allowed


@pytest.mark.parametrize("core", [None, 4095])
def test_a_core_that_is_not_there_changes_nothing(core: int | None) -> None:
    allowed = os.sched_getaffinity(0)
    begin_on(core)
    assert os.sched_getaffinity(0) == allowed


@pytest.mark.parametrize("cores", [(), (4,), (0, 1), (2, 3, 7)])
def test_each_core_is_used_as_often_as_the_others(cores: tuple[int, ...]) -> None:
    turns = Turns(cores)
    drawn = [turns.core() for _ in range(6)]
    assert {core: drawn.count(core) for core in cores} == dict.fromkeys(
        cores, 6 // (len(cores) or 1)
    )
    assert cores or drawn == [None] * 6


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_second_order_is_the_reverse_of_the_one_before(count: int) -> None:
    turns = Turns()
    orders = [turns.order(count) for _ in range(40)]
    for one, other in zip(orders[::2], orders[1::2], strict=True):
        assert sorted(one) == list(range(count))
        assert other == one[::-1]
    assert len({tuple(order) for order in orders}) > 1 or count == 1


def test_an_order_fits_the_rows_that_are_left() -> None:
    turns = Turns()
    assert [sorted(turns.order(count)) for count in (3, 2, 2, 1)] == [
        [0, 1, 2],
        [0, 1],
        [0, 1],
        [0],
    ]

"""Cores on which blocks begin."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from toolkit.measuring.timing.placement import begin_on, placement_cores
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
        (("0-3", ""), {0, 3}, (0, 3)),  # a node with memory alone
        ((), {0, 3}, (0, 3)),
        (("words",), {0, 3}, (0, 3)),
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

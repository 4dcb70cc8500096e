"""Resident sizes: read from the system, and judged over the blocks of a run."""

from __future__ import annotations

import resource
from dataclasses import replace

import numpy as np
import psutil
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toolkit.core.measurement import Block
from toolkit.core.memory import peak_rss_bytes, rss_bytes
from toolkit.measuring.timing.memory import (
    GROWTH_BYTES,
    Growth,
    steady_growth,
    watched,
)

BASE = 100 * 2**20
MORE = GROWTH_BYTES + 1


def blocks(*sizes: int | None, runs: int = 10) -> list[Block]:
    return [
        Block(round=i, lead=np.zeros(1), samples=np.zeros(runs), rss_bytes=size)
        for i, size in enumerate(sizes)
    ]


def test_the_resident_size_is_the_system_s() -> None:
    found = rss_bytes()
    assert found is not None
    assert found == pytest.approx(psutil.Process().memory_info().rss, rel=0.05)
    assert found <= peak_rss_bytes() * 1.05
    assert found % resource.getpagesize() == 0


def test_what_a_block_takes_in_time_and_memory() -> None:
    parts: dict[str, int | None] = {}
    with watched("open", parts, iter([1000, 1700]).__next__):
        kept = np.ones(64 * 2**20, np.uint8)
    assert parts["open_ns"] == 700
    assert parts["open_bytes"] == pytest.approx(kept.nbytes, rel=0.1)


@given(st.integers(6, 60), st.integers(MORE, 10**9), st.integers(1, 1000))
def test_growth_by_the_same_with_every_block_is_found(count: int, step: int, runs: int) -> None:
    found = steady_growth(blocks(*(BASE + i * step for i in range(count)), runs=runs))
    assert found is not None
    assert found.bytes_per_run == pytest.approx(step / (runs + 1), rel=0.3)


def test_the_growth_of_a_run_is_exact_where_thirds_are_odd() -> None:
    found = steady_growth(blocks(*(BASE + i * MORE for i in range(9))))
    assert found == Growth(size_bytes=6 * MORE, runs=66.0)
    assert found.bytes_per_run == MORE / 11


@example((12, 6), 10 * GROWTH_BYTES)  # half of the middle third lies below it, half above
@given(
    st.integers(1, 60).flatmap(lambda count: st.tuples(st.just(count), st.integers(0, count))),
    st.integers(-(10**8), 10**10),
)
def test_one_allocation_at_any_time_is_no_leak(place: tuple[int, int], step: int) -> None:
    count, at = place
    assert steady_growth(blocks(*[BASE] * at, *[BASE + step] * (count - at))) is None


@given(st.lists(st.integers(BASE, BASE + GROWTH_BYTES), max_size=60))
def test_sizes_that_wobble_are_no_leak(sizes: list[int]) -> None:
    assert steady_growth(blocks(*sizes)) is None


def test_growth_that_comes_to_rest_is_no_leak() -> None:
    sizes = [BASE + 10 * MORE * min(i, 4) for i in range(12)]
    assert steady_growth(blocks(*sizes)) is None


def test_unknown_sizes_and_few_blocks_say_nothing() -> None:
    assert steady_growth(blocks(*(BASE + i * MORE for i in range(5)))) is None
    assert steady_growth(blocks(None, *(BASE + i * MORE for i in range(11)))) is None


def in_processes(*processes: list[int]) -> list[Block]:
    return [
        replace(block, process=number)
        for number, sizes in enumerate(processes)
        for block in blocks(*sizes)
    ]


def test_a_leak_shows_in_every_process() -> None:
    leak, rest = [BASE + i * MORE for i in range(9)], [BASE] * 9
    faster = [BASE + 2 * i * MORE for i in range(9)]
    assert steady_growth(in_processes(leak, faster)) == Growth(size_bytes=12 * MORE, runs=66.0)
    assert steady_growth(in_processes(leak, rest)) is None


def test_a_larger_second_process_is_no_leak() -> None:
    assert steady_growth(in_processes([BASE] * 9, [2 * BASE] * 9, [3 * BASE] * 9)) is None

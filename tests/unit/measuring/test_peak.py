"""The best of many runs, with a clock that the test controls; real products and copies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.errors import UsageError
from toolkit.measuring.machine.peak_kernels import (
    COPY,
    PRECISIONS,
    best_rate,
    last_caches_bytes,
    peak_rate,
)
from toolkit.measuring.workers.client import WorkerProcess


class Bench:
    """Jobs that take as long as they are told, on a clock of their own, in nanoseconds."""

    def __init__(self) -> None:
        self.now = 0
        self.ran: list[int] = []

    def clock(self) -> int:
        return self.now

    def job(self, number: int, durations: Iterator[int]) -> Callable[[], None]:
        def run() -> None:
            self.ran.append(number)
            self.now += next(durations)

        return run


@given(durations=st.lists(st.integers(1, 10**9), min_size=1, max_size=50))
def test_the_fastest_run_counts(durations: list[int]) -> None:
    bench = Bench()
    rate = best_rate([(600, bench.job(0, iter(durations)))], sum(durations) / 1e9, bench.clock)
    assert rate == pytest.approx(600 * 1e9 / min(durations))


def test_the_job_that_does_most_in_a_second_counts() -> None:
    bench = Bench()
    jobs = [(100, bench.job(0, iter([10] * 99))), (5000, bench.job(1, iter([50] * 99)))]
    assert best_rate(jobs, 1e-6, bench.clock) == pytest.approx(5000 * 1e9 / 50)


def test_jobs_share_the_time_equally() -> None:
    bench = Bench()
    jobs = [(1, bench.job(0, iter([10] * 999))), (1, bench.job(1, iter([200] * 999)))]
    best_rate(jobs, 4e-6, bench.clock)
    assert 4000 <= bench.now < 4200
    assert bench.ran.count(0) * 10 == pytest.approx(bench.ran.count(1) * 200, rel=0.1)


def test_one_run_is_made_however_short_the_time() -> None:
    bench = Bench()
    assert best_rate([(7, bench.job(0, iter([10**12])))], 0, bench.clock) == pytest.approx(0.007)


@pytest.mark.parametrize("what", [*PRECISIONS, COPY])
def test_this_machine_has_a_rate(what: str) -> None:
    """In a worker, as the command measures it."""
    with WorkerProcess(threads=1, timeout_s=60) as worker:
        assert worker.peak(what, 0.01) > 1e6


def test_a_ceiling_of_nothing_known() -> None:
    with pytest.raises(UsageError, match="'float8'"):
        peak_rate("float8", 1, 0.01, time.perf_counter_ns)


def test_caches_that_cores_share_are_counted_once(tmp_path: Path) -> None:
    """Four cores, a second level each, a third level for two."""
    for core in range(4):
        pair = f"{core // 2 * 2}-{core // 2 * 2 + 1}"
        for index, level, size, sharers in ((0, 2, "1024K", core), (1, 3, "32768K", pair)):
            place = tmp_path / f"cpu{core}" / "cache" / f"index{index}"
            place.mkdir(parents=True)
            (place / "level").write_text(f"{level}\n")
            (place / "size").write_text(f"{size}\n")
            (place / "shared_cpu_list").write_text(f"{sharers}\n")
    (tmp_path / "cpu0" / "cache" / "index7").mkdir()
    assert last_caches_bytes(tmp_path) == 2 * 32 * 2**20
    assert last_caches_bytes(tmp_path / "nowhere") == 0

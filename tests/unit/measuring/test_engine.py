"""Warm-up, turns and the stop rule, on probes of known times and a clock that they drive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.errors import UsageError, WorkerError
from toolkit.core.measurement import Measurement, Opening, Scope
from toolkit.measuring.figures.rounds import round_ratios
from toolkit.measuring.figures.statistics import relative_reach
from toolkit.measuring.timing.clock import Timed
from toolkit.measuring.timing.engine import (
    FEWEST_PROCESSES,
    STOPPING_PROCESSES,
    USUAL_PROCESSES,
    WARMUP_LIMIT_NS,
    Part,
    Procedure,
    TimedRow,
    is_enough,
    measure,
    preparation_of,
)
from toolkit.measuring.timing.placement import Turns

FORWARD = Scope.FORWARD
MS = 1_000_000


@final
@dataclass
class FakeClock:
    """Stands still, but for what the probes spend."""

    now_ns: int = 0

    def __call__(self) -> int:
        return self.now_ns


@final
@dataclass(kw_only=True)
class FakeProbe:
    """Each run of call number `n` takes `run_ns(n)`, the first of a call `first_run_ns` more."""

    clock: FakeClock
    run_ns: Callable[[int], float]
    name: str = "probe"
    first_run_ns: int = 0
    fails_at_call: int | None = None
    log: list[str] = field(default_factory=list)
    calls: list[tuple[Scope, int]] = field(default_factory=list)
    cores: list[int | None] = field(default_factory=list)

    def block(self, scope: Scope, count: int, core: int | None = None) -> Timed:
        number = len(self.calls)
        self.calls.append((scope, count))
        self.cores.append(core)
        self.log.append(self.name)
        if number == self.fails_at_call:
            raise WorkerError("The worker broke.", hint="Fix it.")
        samples = np.full(count, round(self.run_ns(number)), np.int64)
        samples[0] += self.first_run_ns
        self.clock.now_ns += int(samples.sum())
        return Timed(samples=samples, rss_bytes=1000 + number)


def steady(ns: float) -> Callable[[int], float]:
    return lambda call: ns


def noisy(ns: float, share: float, seed: int = 0) -> Callable[[int], float]:
    """A level for each call, `share` its relative deviation."""
    levels = ns * np.exp(np.random.default_rng(seed).normal(0, share, 100_000))
    return lambda call: levels[call]


def only(timed_row: TimedRow) -> Measurement:
    (measurement,) = timed_row.measurements()
    return measurement


def block_medians(timed_row: TimedRow) -> np.ndarray:
    return np.array([np.median(block.samples) for block in only(timed_row).blocks])


def run(procedure: Procedure, *levels: Callable[[int], float]) -> tuple[list[TimedRow], FakeClock]:
    """A lane for each of `levels`, measured; the clock shows how long it took."""
    clock = FakeClock()
    timed_rows = [TimedRow(probe=FakeProbe(clock=clock, run_ns=level)) for level in levels]
    measure(timed_rows, FORWARD, whole(procedure), clock)
    return timed_rows, clock


def whole(procedure: Procedure) -> Part:
    """All of a procedure in one process."""
    return Part(procedure=procedure)


@pytest.mark.parametrize("run_ns", [0, 1, 200, MS, 60 * MS, 2_000 * MS])
@pytest.mark.parametrize(("warmup", "runs"), [(0, 1), (5, 100), (3, 37)])
def test_a_fixed_procedure_gives_exactly_its_runs(run_ns: int, warmup: int, runs: int) -> None:
    (timed_row,), _ = run(Procedure(warmup=warmup, runs=runs, max_seconds=0.001), steady(run_ns))
    measurement = only(timed_row)
    assert (len(measurement.warmup), len(measurement.samples)) == (warmup, runs)
    assert measurement.settled
    leads = sum(len(block.lead) for block in measurement.blocks)
    assert sum(count for _, count in timed_row.probe.calls) == warmup + runs + leads


def test_fixed_runs_of_lanes_of_different_speed_are_all_done() -> None:
    timed_rows, _ = run(Procedure(warmup=2, runs=50), steady(2 * MS), steady(20 * MS), steady(100))
    assert [len(only(timed_row).samples) for timed_row in timed_rows] == [50, 50, 50]


def test_blocks_take_about_five_milliseconds() -> None:
    (timed_row,), _ = run(Procedure(), steady(MS))
    sizes = {len(block.samples) for block in only(timed_row).blocks}
    assert sizes == {5}


def test_every_round_has_a_block_of_each_lane_in_random_order() -> None:
    clock, log = FakeClock(), []
    timed_rows = [
        TimedRow(probe=FakeProbe(clock=clock, run_ns=steady(ns), name=name, log=log))
        for name, ns in (("a", 3 * MS), ("b", 5 * MS), ("c", 60 * MS))
    ]
    measure(timed_rows, FORWARD, whole(Procedure(warmup=4)), clock)
    rounds = len(only(timed_rows[0]).blocks)
    turns = ["".join(log[start : start + 3]) for start in range(0, len(log), 3)]
    assert turns[0] == "abc"  # the warm-up
    assert [sorted(turn) for turn in turns[1:]] == [["a", "b", "c"]] * rounds
    assert len(set(turns[1:])) > 2
    for timed_row in timed_rows:
        assert [block.round for block in only(timed_row).blocks] == list(range(rounds))


def test_each_block_keeps_the_resident_size_after_it() -> None:
    (timed_row,), _ = run(Procedure(warmup=4, runs=100), steady(MS))
    assert [block.rss_bytes for block in only(timed_row).blocks] == [1001 + i for i in range(10)]


def test_a_lane_that_fails_keeps_its_blocks_and_the_others_go_on() -> None:
    clock = FakeClock()
    broken = TimedRow(probe=FakeProbe(clock=clock, run_ns=steady(10 * MS), fails_at_call=4))
    sound = TimedRow(probe=FakeProbe(clock=clock, run_ns=steady(10 * MS)))
    procedure = Procedure(warmup=1, runs=100)
    measure([broken, sound], FORWARD, whole(procedure), clock)
    assert isinstance(broken.failure, WorkerError)
    assert len(only(broken).blocks) == 3
    assert sound.failure is None
    assert len(only(sound).samples) == 100

    asked = len(broken.probe.calls)
    measure([broken, sound], Scope.END_TO_END, whole(procedure), clock)
    assert len(broken.probe.calls) == asked
    assert [m.scope for m in broken.measurements()] == [FORWARD]
    assert [m.scope for m in sound.measurements()] == [FORWARD, Scope.END_TO_END]


@pytest.mark.parametrize("procedure", [Procedure(), Procedure(warmup=5, runs=100)])
@pytest.mark.parametrize("call", [0, 4])
def test_it_ends_when_all_lanes_fail(procedure: Procedure, call: int) -> None:
    clock = FakeClock()
    probes = [FakeProbe(clock=clock, run_ns=steady(10 * MS), fails_at_call=call) for _ in "ab"]
    timed_rows = [TimedRow(probe=probe) for probe in probes]
    measure(timed_rows, FORWARD, whole(procedure), clock)
    assert all(isinstance(timed_row.failure, WorkerError) for timed_row in timed_rows)
    assert [len(probe.calls) for probe in probes] == [call + 1] * 2


def test_no_lanes_need_no_time() -> None:
    clock = FakeClock()
    measure([], FORWARD, whole(Procedure()), clock)
    assert clock.now_ns == 0


def test_adaptive_stops_when_every_interval_is_narrow() -> None:
    procedure = Procedure(warmup=3, target_ci=0.01, max_seconds=1000)
    timed_rows, clock = run(procedure, noisy(MS, 0.02, seed=1), noisy(3 * MS, 0.02, seed=2))
    a, b = map(block_medians, timed_rows)
    for values in (a, b, b / a):
        assert relative_reach(values) <= 0.01
    assert 10 <= len(a) < 200
    assert clock.now_ns < 30e9


def test_a_steady_row_is_measured_for_half_a_second() -> None:
    timed_rows, _ = run(Procedure(warmup=0), steady(MS), steady(7 * MS))
    spent = [int(only(timed_row).samples.sum()) for timed_row in timed_rows]
    assert 500 * MS <= min(spent) < 520 * MS
    assert max(spent) < 1000 * MS


def test_a_narrower_target_takes_longer() -> None:
    rounds = [
        len(only(run(Procedure(warmup=3, target_ci=target), noisy(MS, 0.02))[0][0]).blocks)
        for target in (0.05, 0.005, 0.003)
    ]
    assert rounds == sorted(set(rounds))


def test_narrow_medians_with_a_wide_ratio_are_not_the_end() -> None:
    """One lane is fast by as much as the other is slow, so the ratio scatters twice as far."""
    level = np.exp(np.random.default_rng(3).normal(0, 0.02, 10_000))
    timed_rows, _ = run(
        Procedure(warmup=0, max_seconds=1000),
        lambda call: MS * level[call],
        lambda call: MS / level[call],
    )
    a, b = map(block_medians, timed_rows)
    closed = [
        max(relative_reach(a[:n]), relative_reach(b[:n])) <= 0.01 for n in range(10, len(a) + 1)
    ]
    assert closed.count(True) > 10
    assert relative_reach(b / a) <= 0.01 < relative_reach(b[:-1] / a[:-1])


@pytest.mark.parametrize("timed_rows", [1, 3])
def test_adaptive_stops_at_max_seconds_when_noise_never_closes(timed_rows: int) -> None:
    procedure = Procedure(warmup=0, max_seconds=2)
    levels = [noisy(MS, 0.5, seed=seed) for seed in range(timed_rows)]
    measured, clock = run(procedure, *levels)
    last_round = sum(
        int(m.blocks[-1].lead.sum() + m.blocks[-1].samples.sum()) for m in map(only, measured)
    )
    assert clock.now_ns - last_round < 2e9 <= clock.now_ns


def test_adaptive_gives_every_lane_a_round_however_slow() -> None:
    timed_rows, _ = run(Procedure(warmup=0, max_seconds=0.001), steady(MS), steady(5_000 * MS))
    assert [len(only(timed_row).blocks) for timed_row in timed_rows] == [1, 1]
    assert all(len(only(timed_row).samples) for timed_row in timed_rows)


def test_warm_up_ends_when_the_runs_have_settled() -> None:
    """Ten slow calls, then rest: the last chunks of the warm-up are all at rest."""
    (timed_row,), _ = run(Procedure(), lambda call: MS * (1 + max(0, 10 - call)))
    measurement = only(timed_row)
    assert measurement.settled
    assert measurement.warmup[0] == 11 * MS
    assert measurement.warmup[-1] == MS
    assert set(measurement.samples.tolist()) == {MS}


@pytest.mark.parametrize("run_ns", [0, 50, MS, 500 * MS, 10_000 * MS])
def test_warm_up_of_a_steady_probe_is_bounded(run_ns: int) -> None:
    clock = FakeClock()
    probe = FakeProbe(clock=clock, run_ns=steady(run_ns))
    TimedRow(probe=probe).warm_up(FORWARD, Procedure())
    assert len(probe.calls) < 30
    assert clock.now_ns <= max(WARMUP_LIMIT_NS, run_ns)


@pytest.mark.parametrize(
    "drift",
    [lambda call: MS * 1.06**call, lambda call: MS * (1 + call % 2)],
    ids=["ever slower", "two levels"],
)
def test_a_warm_up_that_never_settles_is_said_and_bounded(drift: Callable[[int], float]) -> None:
    clock = FakeClock()
    timed_row = TimedRow(probe=FakeProbe(clock=clock, run_ns=drift))
    measure([timed_row], FORWARD, whole(Procedure(max_seconds=0.1)), clock)
    measurement = only(timed_row)
    assert not measurement.settled
    assert WARMUP_LIMIT_NS <= measurement.warmup.sum() < 1.1 * WARMUP_LIMIT_NS
    assert measurement.blocks  # it is measured all the same


def test_lead_runs_are_kept_apart() -> None:
    """The first run of every block is slow: it is in the lead, and in no sample."""
    clock = FakeClock()
    timed_row = TimedRow(probe=FakeProbe(clock=clock, run_ns=steady(MS), first_run_ns=9 * MS))
    measure([timed_row], FORWARD, whole(Procedure(warmup=3, runs=120)), clock)
    measurement = only(timed_row)
    assert set(measurement.samples.tolist()) == {MS}
    assert all(block.lead[0] == 10 * MS for block in measurement.blocks)


@pytest.mark.parametrize(
    ("run_ns", "lead"), [(MS // 10, 25), (MS, 3), (100 * MS, 1)], ids=["0.1 ms", "1 ms", "100 ms"]
)
def test_a_lead_takes_milliseconds_or_one_run(run_ns: int, lead: int) -> None:
    (timed_row,), _ = run(Procedure(warmup=5, runs=100), steady(run_ns))
    assert {len(block.lead) for block in only(timed_row).blocks} == {lead}


def test_fixed_runs_are_spread_over_ten_blocks_for_every_lane() -> None:
    timed_rows, _ = run(Procedure(warmup=5, runs=100), steady(100), steady(MS), steady(100 * MS))
    for timed_row in timed_rows:
        assert [len(block.samples) for block in only(timed_row).blocks] == [10] * 10


def in_processes(procedure: Procedure, *levels: Callable[[int], float]) -> list[TimedRow]:
    """A lane for each of `levels`, measured in all of the processes that the procedure asks for."""
    clock = FakeClock()
    timed_rows = [TimedRow(probe=FakeProbe(clock=clock, run_ns=level)) for level in levels]
    count = procedure.processes or 1
    for number in range(count):
        for timed_row, level in zip(timed_rows, levels, strict=True):
            if number:
                timed_row.move_to(FakeProbe(clock=clock, run_ns=level))
        measure(timed_rows, FORWARD, Part(procedure=procedure, number=number, count=count), clock)
    return timed_rows


@given(preparation_s=st.floats(0, 1e4), max_seconds=st.floats(0.1, 1e3), scopes=st.integers(1, 3))
def test_the_number_of_processes_is_affordable(
    preparation_s: float, max_seconds: float, scopes: int
) -> None:
    """All takes at most 1.5 times as long as with three processes, or there are the fewest."""
    count = Procedure(max_seconds=max_seconds).plan(preparation_s, scopes)
    assert FEWEST_PROCESSES <= count <= USUAL_PROCESSES

    def seconds(processes: int) -> float:
        return processes * preparation_s + scopes * max_seconds

    assert count == FEWEST_PROCESSES or seconds(count) <= 1.5 * seconds(3) * (1 + 1e-9)
    if count < USUAL_PROCESSES:
        assert seconds(count + 1) > 1.5 * seconds(3) * (1 - 1e-9)


def test_a_given_number_of_processes_or_runs_is_not_planned() -> None:
    assert Procedure(runs=100).plan(0.1, 2) == 1
    assert Procedure(runs=100, processes=4).plan(1000, 2) == 4
    assert Procedure(processes=1).plan(0.1, 2) == 1


def test_more_processes_than_runs_are_refused() -> None:
    with pytest.raises(UsageError, match="--processes 10 for --runs 5"):
        Procedure(runs=5, processes=10)


@pytest.mark.parametrize(
    ("first_run_s", "seconds"),
    [(0.001, 1.0), (0.5, 5.0), (30.0, 36.5)],
    ids=["brief", "long", "compiled"],
)
def test_the_preparation_of_a_process_includes_its_warm_ups(
    first_run_s: float, seconds: float
) -> None:
    opening = Opening(import_ns=300 * MS, open_ns=0, first_run_ns=int(first_run_s * 1e9))
    assert preparation_of(opening, 2) == pytest.approx(seconds, abs=0.25)


def in_levels(*levels: float) -> TimedRow:
    """A row with a process at each of the levels, sharing ten rounds."""
    clock = FakeClock()
    timed_row = TimedRow(probe=FakeProbe(clock=clock, run_ns=steady(levels[0] * MS)))
    procedure = Procedure(warmup=0, runs=60 * len(levels))
    for number, level in enumerate(levels):
        if number:
            timed_row.move_to(FakeProbe(clock=clock, run_ns=steady(level * MS)))
        measure(
            [timed_row], FORWARD, Part(procedure=procedure, number=number, count=len(levels)), clock
        )
    return timed_row


@pytest.mark.parametrize(
    ("levels", "enough"),
    [
        ([1.0] * STOPPING_PROCESSES, True),
        ([1.0] * (STOPPING_PROCESSES - 1), False),
        ([1.0, 1.05] * STOPPING_PROCESSES, False),
    ],
)
@pytest.mark.parametrize("baseline", [False, True])
def test_processes_are_enough_when_all_intervals_are_narrow(
    levels: list[float], enough: bool, baseline: bool
) -> None:
    timed_rows = [in_levels(*levels)]
    if baseline:
        timed_rows.insert(0, in_levels(*[1.0] * len(levels)))
    part = Part(procedure=Procedure(), number=len(levels) - 1, count=20)
    assert is_enough(timed_rows, [FORWARD], part) is enough


@pytest.mark.parametrize("asked", [Procedure(processes=20), Procedure(runs=100, processes=20)])
def test_processes_that_were_asked_for_are_all_run(asked: Procedure) -> None:
    timed_row = in_levels(*[1.0] * 10)
    assert is_enough([timed_row], [FORWARD], Part(procedure=Procedure(), number=9, count=20))
    assert not is_enough([timed_row], [FORWARD], Part(procedure=asked, number=9, count=20))


def test_rows_of_a_round_begin_on_the_same_core() -> None:
    clock = FakeClock()
    timed_rows = [TimedRow(probe=FakeProbe(clock=clock, run_ns=steady(MS))) for _ in "ab"]
    part = Part(procedure=Procedure(warmup=1, runs=300))
    measure(timed_rows, FORWARD, part, clock, Turns((3, 5)))
    first, second = (timed_row.probe.cores for timed_row in timed_rows)
    assert first == second
    assert first[0] is None  # the warm-up
    assert first[1:].count(3) == first[1:].count(5) == 5


def test_rounds_are_paired_by_process_and_number() -> None:
    row, baseline = only(in_levels(2.0, 6.0)), only(in_levels(1.0, 2.0))
    missing = replace(baseline, blocks=baseline.blocks[1:])
    for theirs, rounds in ((baseline, [5, 5]), (missing, [4, 5])):
        ratios = round_ratios(row, theirs)
        assert [len(one) for one in ratios] == rounds
        assert [{*one} for one in ratios] == [{2.0}, {3.0}]


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_processes_share_fixed_runs_and_warm_up_each(processes: int) -> None:
    procedure = Procedure(warmup=5, runs=100, processes=processes)
    for timed_row in in_processes(procedure, steady(MS), steady(7 * MS)):
        measurement = only(timed_row)
        assert len(measurement.warmup) == 5 * processes
        assert len(measurement.samples) == 100
        runs = [
            sum(len(block.samples) for block in measurement.blocks if block.process == number)
            for number in range(processes)
        ]
        assert max(runs) - min(runs) <= 1
        assert [block.round for block in measurement.blocks] == list(range(len(measurement.blocks)))


def test_processes_share_the_time_of_rows_that_do_not_come_to_rest() -> None:
    procedure = Procedure(warmup=0, max_seconds=3, processes=3)
    (timed_row,) = in_processes(procedure, noisy(MS, 0.5))
    spent = [
        sum(
            int(b.lead.sum() + b.samples.sum())
            for b in only(timed_row).blocks
            if b.process == number
        )
        for number in range(3)
    ]
    assert spent == pytest.approx([1e9] * 3, rel=0.1)


def test_steady_rows_are_measured_as_long_in_three_processes_as_in_one() -> None:
    one, three = (
        only(in_processes(Procedure(warmup=0, processes=n), steady(MS))[0]) for n in (1, 3)
    )
    assert three.samples.sum() == pytest.approx(one.samples.sum(), rel=0.1)
    assert {block.process for block in three.blocks} == {0, 1, 2}


def test_a_warm_up_that_does_not_settle_in_one_process_is_said() -> None:
    levels = iter([steady(MS), noisy(MS, 0.5), steady(MS)])
    clock = FakeClock()
    timed_row = TimedRow(probe=FakeProbe(clock=clock, run_ns=next(levels)))
    procedure = Procedure(max_seconds=0.1)
    measure([timed_row], FORWARD, Part(procedure=procedure, number=0, count=3), clock)
    assert only(timed_row).settled
    for number in (1, 2):
        timed_row.move_to(FakeProbe(clock=clock, run_ns=next(levels)))
        measure([timed_row], FORWARD, Part(procedure=procedure, number=number, count=3), clock)
        assert not only(timed_row).settled


def test_a_lane_that_failed_stays_out_of_later_processes() -> None:
    clock = FakeClock()
    timed_row = TimedRow(probe=FakeProbe(clock=clock, run_ns=steady(MS), fails_at_call=3))
    procedure = Procedure(warmup=1, runs=30, processes=2)
    measure([timed_row], FORWARD, Part(procedure=procedure, number=0, count=2), clock)
    done = len(only(timed_row).samples)
    timed_row.move_to(FakeProbe(clock=clock, run_ns=steady(MS)))
    measure([timed_row], FORWARD, Part(procedure=procedure, number=1, count=2), clock)
    assert len(only(timed_row).samples) == done


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("warmup", -1),
        ("runs", 0),
        ("runs", -5),
        ("processes", 0),
        ("processes", 101),
        *(("target_ci", bad) for bad in (0.0, -0.01, float("nan"), float("inf"))),
        *(("max_seconds", bad) for bad in (0.0, -1.0, float("nan"), float("inf"))),
    ],
)
def test_a_procedure_of_bad_values_is_refused(option: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} {value}") as caught:
        Procedure(**{option: value})
    assert caught.value.hint

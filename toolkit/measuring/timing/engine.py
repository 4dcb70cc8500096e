"""Measurement loop: warm-up, interleaved blocks, and the stopping rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Protocol, final

import numpy as np

from toolkit.core.documents import Json
from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.measurement import Block, Measurement, Opening, Scope
from toolkit.measuring.figures.rounds import round_ratios
from toolkit.measuring.figures.statistics import median_reach, paired_ratio, reach, relative_reach
from toolkit.measuring.timing.clock import Clock, Timed
from toolkit.measuring.timing.placement import Turns

BLOCK_NS = 5_000_000
WARMUP_CHUNK_NS = 20_000_000
WARMUP_LIMIT_NS = 3_000_000_000
USUAL_WARMUP_NS = 150_000_000
START_S = 0.2  # to start and end an interpreter
SETTLED_CHUNKS = 3
SETTLED_WITHIN = 1.05
BLOCKS = 10  # over which a fixed number of runs is spread
LEAST_NS = 500_000_000  # of a row's samples, shared by all planned processes
MOST_RUNS = 10_000
FEWEST_PROCESSES, USUAL_PROCESSES, MOST_PROCESSES = 4, 10, 100
STOPPING_PROCESSES = 6  # after fewer, stopping at a narrow interval would favour those too narrow
MOST_SECONDS = 1e6
LEAD_NS = 2_500_000  # duration of a block's lead: its first runs, which are in no statistic
LONG_NS = 100 * LEAD_NS  # runs this long need no lead, since a block's start is negligible


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """Settings that determine how long to measure.

    Each row has `processes` processes, one after the other, which share the runs and the time; each
    is warmed up. None means one for a fixed number of runs, else as many as `plan` chooses.

    `warmup` and `runs` fix the number of runs; leads of blocks come on top. With `warmup` None,
    warm-up continues until it settles. With `runs` None, a process is measured until the interval
    over its rounds is within `target_ci` of every median and ratio, and processes are started until
    the interval over processes is, or until `max_seconds` are spent on one scope of a batch, for
    all its rows together. Raises UsageError for a value out of range.
    """

    warmup: int | None = None
    runs: int | None = None
    target_ci: float = 0.01
    max_seconds: float = 10.0
    processes: int | None = None

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("warmup", self.warmup, 0, math.inf),
            ("runs", self.runs, 1, math.inf),
            ("processes", self.processes, 1, MOST_PROCESSES),
        ):
            if value is not None and not (isinstance(value, int) and least <= value <= most):
                bounds = f"{least} or more" if most == math.inf else f"{least} to {most}"
                raise UsageError(
                    f"Got --{name} {value}, expected {bounds}.",
                    hint=f"Give --{name} {bounds}, or leave it out.",
                )
        for option, number in (("target-ci", self.target_ci), ("max-seconds", self.max_seconds)):
            if not 0 < number <= MOST_SECONDS:
                raise UsageError(
                    f"Got --{option} {number}, expected above 0, at most {MOST_SECONDS:g}.",
                    hint=f"Give --{option} a positive number.",
                )
        if self.processes is not None and self.processes > (self.runs or math.inf):
            raise UsageError(
                f"Got --processes {self.processes} for --runs {self.runs}.",
                hint="Give at least one run per process.",
            )

    def plan(self, preparation_s: float, scopes: int) -> int:
        """Return the number of processes of each row.

        `preparation_s` is the time it takes to open and warm up one process of every row, and
        `scopes` the number of scopes. By default, opening and measuring together take at most 1.5
        times as long as they would with three processes if the whole time limit is used, which is
        the cost of a narrow interval; there are at least FEWEST_PROCESSES and at most
        USUAL_PROCESSES.
        """
        if self.processes is not None or self.runs is not None:
            return self.processes or 1
        affordable = 4.5 + self.max_seconds * scopes / 2 / max(preparation_s, 1e-9)
        return int(min(USUAL_PROCESSES, max(FEWEST_PROCESSES, affordable)))

    def to_json(self) -> Json:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Part of a procedure that one of a row's processes measures; all parts are equal.

    `number` counts from 0 to `count`, excluded. `runs` is cumulative: it includes the parts of the
    processes before this one.
    """

    procedure: Procedure
    number: int = 0
    count: int = 1

    @property
    def runs(self) -> int | None:
        fixed = self.procedure.runs
        return None if fixed is None else math.ceil(fixed * (self.number + 1) / self.count)

    @property
    def least_ns(self) -> float:
        return LEAST_NS / self.count

    @property
    def seconds(self) -> float:
        """Time limit of this part."""
        return self.procedure.max_seconds / self.count


class Probe(Protocol):
    """Interface of anything that can be timed: a worker, or a test double."""

    def block(self, scope: Scope, count: int, core: int | None = None) -> Timed: ...


@final
@dataclass(kw_only=True)
class WarmUp:
    """Warm-up runs in chunks, in nanoseconds per run."""

    chunks: list[np.ndarray] = field(default_factory=list)
    settled: bool = False

    @property
    def samples(self) -> np.ndarray:
        return _join(self.chunks)

    def run(
        self, block: Callable[[int], np.ndarray], exactly: int | None, clients: int = 1
    ) -> None:
        """Call `block` until three chunks in a row agree within 5 %, or for `exactly` runs.

        Gives up after WARMUP_LIMIT_NS and leaves `settled` False. `clients` is the number of runs
        of a chunk that are in progress at the same time.
        """
        if exactly is not None:
            if exactly:
                self.chunks.append(block(exactly))
            self.settled = True
            return
        medians: list[float] = []
        count, spent = 1, 0
        while spent < WARMUP_LIMIT_NS:
            chunk = block(count)
            self.chunks.append(chunk)
            took = int(chunk.sum()) // clients
            spent += took
            if took < WARMUP_CHUNK_NS and count < MOST_RUNS:
                count *= 2
                continue
            medians.append(float(np.median(chunk)))
            last = medians[-SETTLED_CHUNKS:]
            if len(last) == SETTLED_CHUNKS and max(last) <= SETTLED_WITHIN * min(last):
                self.settled = True
                return


@final
@dataclass(kw_only=True)
class TimedRow:
    """State of one row while it is measured, over all its processes.

    `probe` is the current process, `process` its number. `compared` is False for a row that is
    compared with no other; the stopping rule ignores its intervals if any other row is compared.
    `disturbances` has the fraction of the processor that other load took in each scope.
    """

    probe: Probe
    process: int = 0
    compared: bool = True
    failure: ToolkitError | None = None
    disturbances: dict[Scope, float] = field(default_factory=dict)
    _runs: dict[Scope, _Runs] = field(default_factory=dict)

    def measurements(self) -> tuple[Measurement, ...]:
        return tuple(
            Measurement(
                scope=scope,
                warmup=_join([warmup.samples for warmup in runs.warmups]),
                settled=all(warmup.settled for warmup in runs.warmups),
                disturbance=self.disturbances.get(scope, 0.0),
                blocks=tuple(runs.blocks),
            )
            for scope, runs in self._runs.items()
        )

    def move_to(self, probe: Probe) -> None:
        """Continue in the next process of the row."""
        self.probe = probe
        self.process += 1

    def warm_up(self, scope: Scope, procedure: Procedure) -> None:
        runs = self._runs.setdefault(scope, _Runs())
        runs.begin_process()
        warmup = WarmUp()
        runs.warmups.append(warmup)
        warmup.run(lambda count: self.probe.block(scope, count).samples, procedure.warmup)

    def run_block(self, scope: Scope, part: Part, round_number: int, core: int | None) -> None:
        """Run one block, which begins on `core`: its lead, then the measured runs."""
        runs = self._runs[scope]
        lead, count = runs.block_size(part)
        timed = self.probe.block(scope, lead + count, core)
        runs.add(
            Block(
                round=round_number,
                process=self.process,
                lead=timed.samples[:lead],
                samples=timed.samples[lead:],
                rss_bytes=timed.rss_bytes,
            )
        )

    def owed_nothing(self, scope: Scope, part: Part) -> bool:
        """Return whether a fixed number of runs was given and is done."""
        return part.runs is not None and self._runs[scope].measured >= part.runs

    def rounds(self, scope: Scope) -> int:
        """Return the number of rounds so far."""
        blocks = self._runs[scope].blocks
        return blocks[-1].round + 1 if blocks else 0

    def medians(self, scope: Scope) -> np.ndarray:
        """Return the median of each block of the current process, in nanoseconds."""
        return np.array(self._runs[scope].medians)

    def spent_ns(self, scope: Scope) -> int:
        """Return the sum of the samples of the current process, in nanoseconds."""
        return self._runs[scope].spent_ns

    @contextmanager
    def keeping_failure(self) -> Iterator[None]:
        """Store a ToolkitError that the block raises, so that only this row fails."""
        try:
            yield
        except ToolkitError as error:
            self.failure = error


def preparation_of(opening: Opening, scopes: int) -> float:
    """Return the seconds that opening and warming up another process of a row are expected to take.

    The first run bounds the duration of a pass; a warm-up has at least four.
    """
    warm_up_s = min(WARMUP_LIMIT_NS, max(USUAL_WARMUP_NS, 4 * opening.first_run_ns)) / 1e9
    return START_S + opening.total_ns / 1e9 + scopes * warm_up_s


@dataclass(kw_only=True)
class _Runs:
    """Warm-ups and blocks of one row in one scope.

    `medians` and `spent_ns` are those of the current process. The stopping rule needs them after
    each round, when computing them from all blocks would take time from measuring.
    """

    warmups: list[WarmUp] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    medians: list[float] = field(default_factory=list)
    spent_ns: int = 0

    def begin_process(self) -> None:
        self.medians, self.spent_ns = [], 0

    def add(self, block: Block) -> None:
        self.blocks.append(block)
        self.medians.append(float(np.median(block.samples)))
        self.spent_ns += int(block.samples.sum())

    @property
    def measured(self) -> int:
        return sum(len(block.samples) for block in self.blocks)

    def block_size(self, part: Part) -> tuple[int, int]:
        """Return the numbers of lead runs and measured runs, estimated from the latest runs.

        A fixed number of runs is spread over BLOCKS blocks, the same for every row.
        """
        recent = self.blocks[-1].samples if self.blocks else _join(self.warmups[-1].chunks[-1:])
        expected = max(1.0, float(np.median(recent))) if len(recent) else float(BLOCK_NS)
        lead = min(MOST_RUNS, math.ceil(LEAD_NS / expected)) if expected < LONG_NS else 0
        if part.procedure.runs is not None and part.runs is not None:
            share = -(-part.procedure.runs // BLOCKS)
            return lead, min(share, part.runs - self.measured)
        return lead, min(MOST_RUNS, math.ceil(BLOCK_NS / expected))


def measure(
    timed_rows: Sequence[TimedRow],
    scope: Scope,
    part: Part,
    clock: Clock,
    turns: Turns | None = None,
) -> None:
    """Warm up every row, then run one block of each per round until all have done their part.

    `turns` gives each round a random order, so that periodic activity, such as a container's quota
    that is used up and refilled, affects all rows alike, and a core on which every row begins its
    block: see placement.py. A row that fails keeps its blocks and drops out; the others
    continue. `clock` only decides when the time is over.
    """
    for timed_row in _alive(timed_rows):
        with timed_row.keeping_failure():
            timed_row.warm_up(scope, part.procedure)
    turns = turns or Turns()
    deadline = clock() + round(part.seconds * 1e9)
    round_number = max((timed_row.rounds(scope) for timed_row in _alive(timed_rows)), default=0)
    while going := [
        timed_row for timed_row in _alive(timed_rows) if not timed_row.owed_nothing(scope, part)
    ]:
        core = turns.core()
        for index in turns.order(len(going)):
            timed_row = going[index]
            with timed_row.keeping_failure():
                timed_row.run_block(scope, part, round_number, core)
        round_number += 1
        if part.runs is None and (
            clock() >= deadline or _closed(_waited_for(timed_rows), scope, part)
        ):
            return


def _closed(timed_rows: Sequence[TimedRow], scope: Scope, part: Part) -> bool:
    """Return whether the rounds of the current process are enough.

    The intervals over its rounds must be within the target for every median and ratio, after the
    least time of each row.
    """
    if not timed_rows:
        return True
    if min(timed_row.spent_ns(scope) for timed_row in timed_rows) < part.least_ns:
        return False
    medians = [timed_row.medians(scope) for timed_row in timed_rows]
    if (medians[0] <= 0).any():
        return False
    ratios = [other / medians[0] for other in medians[1:]]
    target = part.procedure.target_ci
    return all(relative_reach(values) <= target for values in (*medians, *ratios))


def is_enough(timed_rows: Sequence[TimedRow], scopes: Sequence[Scope], part: Part) -> bool:
    """Return whether the processes up to this part are enough, although more were planned.

    The intervals over processes of all medians, and of all ratios to the first row, must be within
    the target. A number of processes or runs that was asked for is always completed.
    """
    procedure = part.procedure
    if procedure.processes is not None or procedure.runs is not None:
        return False
    return part.number + 1 >= STOPPING_PROCESSES and _are_precise(
        timed_rows, scopes, procedure.target_ci
    )


def _are_precise(timed_rows: Sequence[TimedRow], scopes: Sequence[Scope], target_ci: float) -> bool:
    rows = [
        {measurement.scope: measurement for measurement in timed_row.measurements()}
        for timed_row in _waited_for(timed_rows)
    ]
    for scope in scopes:
        measured = [row[scope] for row in rows if scope in row]
        for measurement in measured:
            half = median_reach(measurement.samples_of_processes)
            if half is None or half > target_ci:
                return False
        for measurement in measured[1:]:
            ratio = paired_ratio(round_ratios(measurement, measured[0]))
            if ratio is None or ratio.interval is None:
                return False
            if reach(ratio.interval, ratio.value) > target_ci:
                return False
    return True


def _alive(timed_rows: Sequence[TimedRow]) -> list[TimedRow]:
    return [timed_row for timed_row in timed_rows if timed_row.failure is None]


def _waited_for(timed_rows: Sequence[TimedRow]) -> list[TimedRow]:
    """Return the rows whose intervals must be narrow: those compared, or all if none is."""
    alive = _alive(timed_rows)
    return [timed_row for timed_row in alive if timed_row.compared] or alive


def _join(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)

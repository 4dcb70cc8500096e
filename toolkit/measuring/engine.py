"""Warm-up, blocks in turn, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Protocol, final

import numpy as np

from toolkit.core.documents import Json
from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.measurement import Block, Measurement, Scope
from toolkit.measuring.statistics import median_interval, reach, relative_reach
from toolkit.measuring.timing import Clock, Timed

BLOCK_NS = 10_000_000
WARMUP_CHUNK_NS = 20_000_000
WARMUP_LIMIT_NS = 3_000_000_000
SETTLED_CHUNKS = 3
SETTLED_WITHIN = 1.05
FEWEST_ROUNDS = 10
LEAST_NS = 500_000_000  # of samples of a row, so that there is something to take percentiles of
MOST_RUNS = 10_000
PROCESSES = 3  # of a row: what luck one has with its memory, the others need not share
MOST_PROCESSES = 100
MOST_SECONDS = 1e6
LEAD_NS = 2_500_000  # the start of a block that is its lead
LONG_NS = 100 * LEAD_NS  # a run in which the start of a block is lost, so that none is a lead


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """How long to measure.

    `warmup` and `runs` fix the number of runs (leads of blocks come on top); None lets warm-up go
    on until it settles, and blocks until every 95 % interval is within `target_ci` of its median
    on either side, or `max_seconds` are spent on a scope of a batch, all its rows together.
    `processes` of each row share them, one after the other, each with a warm-up of its own; None
    is PROCESSES, or one for a fixed number of runs.
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

    @property
    def parts(self) -> int:
        """In how many processes of a row it is measured."""
        return self.processes or (PROCESSES if self.runs is None else 1)

    def to_json(self) -> Json:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one of a row's processes has to do of a procedure: the whole, divided evenly.

    Its bounds are what all processes together must have come to after it.
    """

    procedure: Procedure
    number: int = 0

    @property
    def share(self) -> float:
        return (self.number + 1) / self.procedure.parts

    @property
    def runs(self) -> int | None:
        fixed = self.procedure.runs
        return None if fixed is None else math.ceil(fixed * self.share)

    @property
    def fewest_rounds(self) -> int:
        return math.ceil(FEWEST_ROUNDS * self.share)

    @property
    def least_ns(self) -> float:
        return LEAST_NS * self.share

    @property
    def seconds(self) -> float:
        """For itself alone."""
        return self.procedure.max_seconds / self.procedure.parts


class Probe(Protocol):
    """What can be timed: a worker, or a double in a test."""

    def block(self, scope: Scope, count: int) -> Timed: ...


@final
@dataclass(kw_only=True)
class WarmUp:
    """Runs before those that count, nanoseconds each, a chunk after the other."""

    chunks: list[np.ndarray] = field(default_factory=list)
    settled: bool = False

    @property
    def samples(self) -> np.ndarray:
        return _join(self.chunks)

    def run(
        self, block: Callable[[int], np.ndarray], exactly: int | None, clients: int = 1
    ) -> None:
        """Calls `block` until three chunks in a row agree within 5 %, or for exactly so many runs.

        `clients` is how many of the runs of a chunk go on at a time.
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
class Lane:
    """One row while it is measured, and what it has come to so far, in all its processes.

    `probe` is the process of the moment, `process` its number.
    `compared` is False for a row that no other is compared with: nobody waits for its intervals.
    `disturbances` are the shares of the processor that others took while a scope was measured.
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
        """Goes on in the next process of the row."""
        self.probe = probe
        self.process += 1

    def warm_up(self, scope: Scope, procedure: Procedure) -> None:
        runs = self._runs.setdefault(scope, _Runs())
        warmup = WarmUp()
        runs.warmups.append(warmup)
        warmup.run(lambda count: self.probe.block(scope, count).samples, procedure.warmup)

    def run_block(self, scope: Scope, part: Part, round_number: int) -> None:
        """One block: its lead, then its runs."""
        runs = self._runs[scope]
        lead, count = runs.block_size(part)
        timed = self.probe.block(scope, lead + count)
        runs.blocks.append(
            Block(
                round=round_number,
                process=self.process,
                lead=timed.samples[:lead],
                samples=timed.samples[lead:],
                rss_bytes=timed.rss_bytes,
            )
        )

    def owed_nothing(self, scope: Scope, part: Part) -> bool:
        """Whether a fixed number of runs is done."""
        return part.runs is not None and self._runs[scope].measured >= part.runs

    def rounds(self, scope: Scope) -> int:
        """How many it has been measured in."""
        blocks = self._runs[scope].blocks
        return blocks[-1].round + 1 if blocks else 0

    def blocks(self, scope: Scope) -> list[np.ndarray]:
        return [block.samples for block in self._runs[scope].blocks]

    @contextmanager
    def keeping_failure(self) -> Iterator[None]:
        """Keeps the error of the block, so that it costs this lane only."""
        try:
            yield
        except ToolkitError as error:
            self.failure = error


@dataclass(kw_only=True)
class _Runs:
    """What one lane has come to in one scope."""

    warmups: list[WarmUp] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    @property
    def measured(self) -> int:
        return sum(len(block.samples) for block in self.blocks)

    def block_size(self, part: Part) -> tuple[int, int]:
        """How many runs of lead, and how many that count, judged by the last runs.

        A fixed number of runs is spread over FEWEST_ROUNDS blocks, the same for every lane, since
        one block says nothing about the next.
        """
        recent = self.blocks[-1].samples if self.blocks else _join(self.warmups[-1].chunks[-1:])
        expected = max(1.0, float(np.median(recent))) if len(recent) else float(BLOCK_NS)
        lead = min(MOST_RUNS, math.ceil(LEAD_NS / expected)) if expected < LONG_NS else 0
        if part.procedure.runs is not None and part.runs is not None:
            share = -(-part.procedure.runs // FEWEST_ROUNDS)
            return lead, min(share, part.runs - self.measured)
        return lead, min(MOST_RUNS, math.ceil(BLOCK_NS / expected))


def measure(lanes: Sequence[Lane], scope: Scope, part: Part, clock: Clock) -> None:
    """Warms every lane up, then runs a block of each in turn until all have done their part.

    The order is drawn anew in each round: what else happens at regular intervals, such as a
    container's quota that is spent and refilled, meets all lanes alike. A lane that fails keeps
    what it has and leaves the round; the others go on. `clock` only decides when `max_seconds`
    are over.
    """
    for lane in _alive(lanes):
        with lane.keeping_failure():
            lane.warm_up(scope, part.procedure)
    deadline = clock() + round(part.seconds * 1e9)
    round_number = max((lane.rounds(scope) for lane in _alive(lanes)), default=0)
    rng = np.random.default_rng(part.number)
    while going := [lane for lane in _alive(lanes) if not lane.owed_nothing(scope, part)]:
        for index in rng.permutation(len(going)):
            lane = going[index]
            with lane.keeping_failure():
                lane.run_block(scope, part, round_number)
        round_number += 1
        if part.runs is None and (clock() >= deadline or _closed(_waited_for(lanes), scope, part)):
            return


def _closed(lanes: Sequence[Lane], scope: Scope, part: Part) -> bool:
    """Whether the interval of every median, and of every ratio to the first lane, is narrow.

    Medians of blocks say it cheaply; when they all do, the intervals that are reported are asked.
    """
    target = part.procedure.target_ci
    blocks = [lane.blocks(scope) for lane in lanes]
    if not blocks or min(map(len, blocks)) < part.fewest_rounds:
        return not blocks
    if min(sum(int(block.sum()) for block in lane) for lane in blocks) < part.least_ns:
        return False
    medians = [np.array([np.median(block) for block in lane]) for lane in blocks]
    if (medians[0] <= 0).any():
        return False
    ratios = [other / medians[0] for other in medians[1:]]
    if any(relative_reach(values) > target for values in (*medians, *ratios)):
        return False
    return all(
        (interval := median_interval(lane)) is not None
        and reach(interval, float(np.median(np.concatenate(lane)))) <= target
        for lane in blocks
    )


def _alive(lanes: Sequence[Lane]) -> list[Lane]:
    return [lane for lane in lanes if lane.failure is None]


def _waited_for(lanes: Sequence[Lane]) -> list[Lane]:
    """The rows whose intervals are to close: those that are compared, or all if none is."""
    alive = _alive(lanes)
    return [lane for lane in alive if lane.compared] or alive


def _join(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)

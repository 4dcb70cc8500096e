"""Processes of rows, one after the other: in which order they open, and how many are enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from toolkit.core.measurement import Row, Scope
from toolkit.measuring.timing.cpu_contention import LoadMeter, OtherLoad, average
from toolkit.measuring.timing.engine import (
    Part,
    Procedure,
    TimedRow,
    is_enough,
    measure,
    preparation_of,
)
from toolkit.measuring.timing.placement import Turns
from toolkit.measuring.workers.client import WorkerProcess


class RowInProcesses(Protocol):
    """A row that is measured in several processes."""

    @property
    def row(self) -> Row: ...

    @property
    def timed_row(self) -> TimedRow | None: ...

    @property
    def worker(self) -> WorkerProcess | None: ...

    @property
    def alive(self) -> bool: ...

    def close(self) -> None: ...


R = TypeVar("R", bound=RowInProcesses)


def open_in_turn(
    rows: Sequence[R], number: int, open_row: Callable[[R], None], report: Callable[[int, R], None]
) -> None:
    """End the current process of each row, and start process `number` of each that is alive.

    Every second time, this is done in reverse order: a process that starts later gets other memory,
    which makes it faster or slower for its lifetime. `report` gets the number of rows done.
    """
    ordered = rows if number % 2 == 0 else rows[::-1]
    for row in ordered:
        row.close()
    for done, row in enumerate(ordered, 1):
        if row.alive:
            open_row(row)
        report(done, row)


def measure_in_processes(
    rows: Sequence[RowInProcesses],
    scopes: Sequence[Scope],
    procedure: Procedure,
    turns: Turns,
    *,
    least: int,
    open_all: Callable[[int, int | None], None],
    report: Callable[[int, int, int, Scope], None],
) -> dict[Scope, OtherLoad]:
    """Measure every scope in several processes of each row; return the load of others by scope.

    At least `least` processes are opened. `open_all` opens a process of every row, given its number
    and how many there will be, None before that is known. `report` gets the number of the process,
    how many there are, and the number and name of the scope that is done.
    """
    loads: dict[Scope, list[OtherLoad]] = {}
    open_all(0, None)
    openings_s = (preparation_of(row.row.openings[0], len(scopes)) for row in rows if row.alive)
    count = procedure.plan(sum(openings_s), len(scopes)) if scopes else procedure.processes or 1
    total = max(count, least)
    for number in range(total):
        if number:
            open_all(number, total)
        if not _alive(rows):
            break
        if not scopes or number >= count:
            continue
        part = Part(procedure=procedure, number=number, count=count)
        for done, scope in enumerate(scopes, 1):
            meter = LoadMeter([row.worker.pid for row in rows if row.worker])
            measure(_alive(rows), scope, part, time.monotonic_ns, turns)
            loads.setdefault(scope, []).append(meter.read())
            for timed_row in _alive(rows):
                timed_row.disturbances[scope] = average(loads[scope]).disturbance
            report(number, total, done, scope)
        if number + 1 >= least and is_enough(_alive(rows), scopes, part):
            break
    return {scope: average(parts) for scope, parts in loads.items()}


def _alive(rows: Sequence[RowInProcesses]) -> list[TimedRow]:
    return [row.timed_row for row in rows if row.timed_row and row.alive]

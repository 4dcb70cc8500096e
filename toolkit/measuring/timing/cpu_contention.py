"""Processor load of other processes during a measurement."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Self

import psutil


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Processor seconds so far: of the machine, of the measurement, stolen by the hypervisor."""

    wall_s: float
    busy_s: float
    ours_s: float
    stolen_s: float

    @classmethod
    def now(cls, pids: Iterable[int]) -> Self:
        """Return the usage up to now. `pids` and this process belong to the measurement."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        stolen = getattr(times, "steal", 0.0)
        counted = ("guest", "guest_nice")  # already included in user and nice
        total = sum(value for name, value in times._asdict().items() if name not in counted)
        return cls(
            wall_s=time.monotonic(),
            busy_s=total - idle - stolen,
            ours_s=_own_seconds() + sum(_seconds(pid) for pid in pids),
            stolen_s=stolen,
        )


@dataclass(frozen=True, kw_only=True)
class OtherLoad:
    """Fractions of all cores, 0 to 1, that were not available for `wall_s` seconds."""

    others: float
    stolen: float
    wall_s: float = 1.0

    @property
    def disturbance(self) -> float:
        """Fraction of all cores that was not available to the measurement."""
        return self.others + self.stolen

    @classmethod
    def between(cls, first: Usage, last: Usage, cores: int) -> Self:
        capacity = max((last.wall_s - first.wall_s) * cores, 1e-9)
        others = (last.busy_s - first.busy_s) - (last.ours_s - first.ours_s)
        return cls(
            others=max(0.0, others / capacity),
            stolen=max(0.0, (last.stolen_s - first.stolen_s) / capacity),
            wall_s=last.wall_s - first.wall_s,
        )


def average(loads: Sequence[OtherLoad]) -> OtherLoad:
    """Return the mean of one or more loads, weighted by their duration."""
    weights = [load.wall_s for load in loads]
    return OtherLoad(
        others=fmean((load.others for load in loads), weights),
        stolen=fmean((load.stolen for load in loads), weights),
        wall_s=sum(weights),
    )


class LoadMeter:
    """Meter of other load from its creation to `read`; `pids` are the measured processes."""

    def __init__(self, pids: Collection[int]) -> None:
        self._pids = tuple(pids)
        self._first = Usage.now(self._pids)

    def read(self) -> OtherLoad:
        cores = psutil.cpu_count(logical=True) or 1
        return OtherLoad.between(self._first, Usage.now(self._pids), cores)


def _own_seconds() -> float:
    """Return the processor seconds of this process and, on Linux, of its ended child processes."""
    times = psutil.Process().cpu_times()
    ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return float(times.user + times.system + ended)


def _seconds(pid: int) -> float:
    """Return the processor seconds of a process, 0 if it ended: then `_own_seconds` has them."""
    with contextlib.suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    return 0.0

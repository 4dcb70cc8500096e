"""Rounds, in which candidates are measured in turn, and the results of each candidate so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np

from toolkit.benchmarking.row_run import Entry
from toolkit.benchmarking.runner import Group, measure_groups
from toolkit.benchmarking.settings import Settings
from toolkit.core.codec import encode
from toolkit.core.documents import Json
from toolkit.core.errors import ToolkitError
from toolkit.core.files import wrapping_os_errors
from toolkit.core.measurement import Result, Row, Scope, Status
from toolkit.core.progress import Progress
from toolkit.measuring.figures.statistics import Ratio, percentile
from toolkit.measuring.figures.summary import compare_rows, doubt_of
from toolkit.measuring.timing.engine import Procedure
from toolkit.optimizing.accuracy import Verdict
from toolkit.optimizing.candidates import Candidate
from toolkit.optimizing.forms import Forms
from toolkit.results import store
from toolkit.sources.inputs import InputSource

FORWARD = Scope.FORWARD
ROUGH = 1.1  # factor on either side of a ratio of one process, which has no interval


@dataclass(frozen=True, kw_only=True)
class CandidateResult:
    """Result of a candidate in its latest round.

    `ratio` is its forward time divided by the baseline's, `interval` the 95 % interval, None after
    rounds of one process. `typical`
    is the ratio of the means over processes, which differ in the placement of memory and cores.
    `out` is the reason why the candidate was dropped. `verdict` is the result of its accuracy
    check, None without one.
    """

    candidate: Candidate
    row: Row | None = None
    ratio: float = math.inf
    interval: tuple[float, float] | None = None
    typical: float = math.inf
    verdict: Verdict | None = None
    out: str | None = None

    @property
    def median_ns(self) -> float | None:
        """Mean over processes of the median forward time; None if it was not measured."""
        found = None if self.row is None else self.row.measurement(FORWARD)
        return None if self.row is None or found is None else typical_ns(self.row)

    @property
    def bounds(self) -> tuple[float, float]:
        """Bounds of the ratio to choose finalists by: the interval, or ROUGH around one process."""
        return self.interval or (self.ratio / ROUGH, self.ratio * ROUGH)

    def value(self, objective: str) -> float:
        """Return the value of an objective to minimise, which is infinite if unknown."""
        return math.inf if self.row is None else OBJECTIVES[objective](self)

    def to_json(self) -> Json:
        row = self.row
        return {
            **self.candidate.to_json(),
            "ratio": self.ratio,
            "ci95": self.interval and list(self.interval),
            "median_ns": self.median_ns,
            "peak_rss_bytes": row and row.peak_rss_bytes,
            "artifact_bytes": row and row.artifact_bytes,
            "precision_ran": row and row.provenance and row.provenance.precision,
            "verdict": encode(self.verdict),
            "out": self.out,
        }


def _p99(candidate_result: CandidateResult) -> float:
    found = candidate_result.row and candidate_result.row.measurement(FORWARD)
    value = percentile(found.samples, 99.0) if found else None
    return math.inf if value is None else value


def _known(value: float | None) -> float:
    return math.inf if value is None else float(value)


OBJECTIVES: Mapping[str, Callable[[CandidateResult], float]] = {
    "latency": lambda one: one.typical,
    "throughput": lambda one: one.typical,
    "p99": _p99,
    "memory": lambda one: _known(None if one.row is None else one.row.peak_rss_bytes),
    "size": lambda one: _known(None if one.row is None else one.row.artifact_bytes),
}
"""Values to minimise. At a given batch, the smallest latency gives the largest throughput."""


@final
@dataclass(frozen=True, kw_only=True)
class RoundRunner:
    """Measurement of rounds at `batch`, each stored as a result in `directory`."""

    directory: Path
    feeding: InputSource
    batch: int
    threads: int
    timeout_s: float
    progress: Progress

    def known(self, name: str, entrants: Sequence[Candidate]) -> Result | None:
        """Return the stored, complete result of a round with these candidates, or None.

        A file that cannot be read is renamed, with a note.
        """
        for path in store.paths(self.directory / name):
            try:
                result = store.load(path)
            except ToolkitError as error:
                aside = path.with_suffix(".unreadable")
                with wrapping_os_errors(f"rename {path}"):
                    path.replace(aside)
                self.progress.note(
                    f"warning: {error.problem} The round {name} is measured again; the file is "
                    f"now {aside.name}."
                )
                continue
            broken_off = any(warning.startswith("Interrupted") for warning in result.warnings)
            if not broken_off and result.plan.get("candidates") == [one.name for one in entrants]:
                return result
        return None

    def begun(self, name: str) -> bool:
        """Return whether any result of this round is stored, even an interrupted one."""
        return bool(store.paths(self.directory / name))

    def measured(
        self,
        name: str,
        entrants: Sequence[Candidate],
        forms: Mapping[str, Forms],
        procedure: Procedure,
    ) -> Result:
        """Measure a round and store the result. KeyboardInterrupt leaves an interrupted result."""
        names = [one.name for one in entrants]
        self.progress.note(f"{name}: {'; '.join(names)}")
        entries = [
            Entry(
                artifacts=forms[one.name],
                runtime=one.runtime,
                options=one.options,
                judged=one.exact,
            )
            for one in entrants
        ]
        settings = Settings.parse(
            scopes=[FORWARD],
            threads=self.threads,
            cpus=None,
            tuning=None,
            procedure=procedure,
            timeout_s=self.timeout_s,
        )
        return measure_groups(
            [Group(batch=self.batch, inputs=self.feeding, entries=entries)],
            settings,
            plan={"round": name, "candidates": names},
            out=self.directory / name,
            progress=self.progress,
        )


def typical_ns(row: Row) -> float:
    """Return the mean over processes of the median forward time, in nanoseconds."""
    found = row.measurement(FORWARD)
    samples: dict[int, list[np.ndarray]] = {}
    for block in found.blocks if found else ():
        samples.setdefault(block.process, []).append(block.samples)
    return float(np.mean([np.median(np.concatenate(of_one)) for of_one in samples.values()]))


def updated_result(
    earlier: CandidateResult, row: Row, first: Row, beside: CandidateResult
) -> CandidateResult:
    """Return the standing of a candidate after a round in which its result is `row`.

    `first` is the row of the candidate that it was measured in turn with, and `beside` that
    candidate's standing before. Ratios to `first` are multiplied by those of `beside`, to become
    ratios to the baseline.
    """
    if row is first and beside.row is not None:
        return replace(earlier, row=row)
    if row.status is not Status.OK:
        return replace(earlier, row=row, out=row.reason or str(row.status))
    if (doubt := doubt_of(row, FORWARD)) is not None:
        return replace(earlier, row=row, out=doubt)
    if (doubt := doubt_of(first, FORWARD)) is not None:
        return replace(earlier, row=row, out=f"{beside.candidate.name}: {doubt}")
    typical = typical_ns(row) / typical_ns(first)
    compared: Ratio | None = compare_rows(row, first, FORWARD)
    value = typical if compared is None else compared.value
    interval = None if compared is None else compared.interval
    return replace(
        earlier,
        row=row,
        ratio=value * beside.ratio,
        typical=typical * beside.typical,
        interval=interval and (interval[0] * beside.ratio, interval[1] * beside.ratio),
    )


def pareto(candidate_results: Sequence[CandidateResult]) -> list[str]:
    """Return the names of the Pareto-optimal candidates.

    The criteria are latency, drop in accuracy and peak memory.
    """

    def figures(one: CandidateResult) -> tuple[float, float, float]:
        lost = 0.0 if one.verdict is None else max(0.0, one.verdict.drop or 0.0)
        memory = one.row and one.row.peak_rss_bytes
        return one.ratio, lost, float(memory or math.inf)

    points = {one.candidate.name: figures(one) for one in candidate_results}
    return [
        name
        for name, own in points.items()
        if not any(
            other != own and all(a <= b for a, b in zip(other, own, strict=True))
            for other in points.values()
        )
    ]

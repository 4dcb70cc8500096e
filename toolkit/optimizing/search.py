"""Resumable search, in rounds, for the fastest candidate that is still accurate enough."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

from runtimes import FOR_CUDA
from toolkit.core.artifact import Artifact
from toolkit.core.documents import Json, plain, read_document, seal, write_document
from toolkit.core.errors import CheckFailedError, ToolkitError, UsageError
from toolkit.core.files import digest_bytes, locked_directory, wrapping_os_errors
from toolkit.core.gates import CheckOutcome
from toolkit.core.measurement import Scope
from toolkit.core.progress import Progress
from toolkit.core.session import SessionOptions
from toolkit.core.specs import Feeds
from toolkit.core.temporary import sweep_below
from toolkit.measuring.figures.statistics import Verdict as Speed
from toolkit.measuring.figures.summary import compare_rows
from toolkit.measuring.machine.environment import describe_environment
from toolkit.measuring.timing.engine import Procedure
from toolkit.optimizing.accuracy import Judge, Verdict
from toolkit.optimizing.bundle import BUNDLE, preprocessing_of, write_bundle
from toolkit.optimizing.candidates import (
    METHODS,
    REWRITES,
    Candidate,
    combined,
    variants,
)
from toolkit.optimizing.forms import Forms, VariantMaker
from toolkit.optimizing.programs import PROGRAMS
from toolkit.optimizing.rounds import CandidateResult, RoundRunner, pareto, updated_result

SCHEMA = "toolkit.search/1"
SEARCH = "search.json"
REPORT = "report.json"
REPORT_SCHEMA = "toolkit.optimize/1"
FORMS, ROUNDS, VERDICTS = "forms", "rounds", "accuracy"
HEAT = 5  # candidates that one round measures in turn with a common baseline
FACTOR = 1.5  # largest ratio to the best, in the objective, at which options are still tried
BETTER = 0.99  # largest ratio to the candidate without an option at which the option is combined
NEAREST = 3  # most candidates whose options are tried
BRIEF_NS = 2e6  # duration of a pass below which fewer threads may be as fast
FINALISTS = 4
MOVED = 2.0  # largest ratio to the best for a thread count that other core placement may favour
TIE = 1.01  # largest ratio to the best at which the plainest candidate is chosen
SCREENING = Procedure(max_seconds=5.0, target_ci=0.02, processes=1)
FINAL = Procedure(max_seconds=12.0)
RESERVED = {"final": 0.0, "late": 0.6}  # share of the budget left for a round to start; else 0.4


@dataclass(frozen=True, kw_only=True)
class Optimized:
    """Result of a search: all candidates, the chosen one, and the path of its bundle.

    `pareto` has the names of the Pareto-optimal candidates in latency, accuracy and memory, `ties`
    those of the finalists that the last measurement did not show to be slower than the chosen one.
    `remarks` say what the search left out, and why. `max_drop` is None for an exact search.
    """

    candidate_results: Sequence[CandidateResult]
    chosen: CandidateResult
    pareto: Collection[str]
    ties: Sequence[str]
    bundle: Path
    batch: int
    objective: str
    max_drop: float | None
    remarks: Sequence[str] = ()

    def to_json(self) -> Json:
        return {
            "chosen": self.chosen.to_json(),
            "standings": [
                candidate_result.to_json() for candidate_result in self.candidate_results
            ],
            "pareto": list(self.pareto),
            "ties": list(self.ties),
            "bundle": str(self.bundle),
            "batch": self.batch,
            "objective": self.objective,
            "max_drop": self.max_drop,
            "remarks": list(self.remarks),
        }


@final
@dataclass(kw_only=True)
class Search:
    """One call of `optimize`: its settings, its tools, and the results of its candidates so far.

    `base` is the baseline, `entrants` are the candidates of the first round, and `late` those that
    are slow to make. `forms` has the artifacts of each candidate's variant. `compared` is whether
    the finalists were measured in turn with each other.
    """

    given: Artifact
    place: Path
    base: Candidate
    entrants: Sequence[Candidate]
    late: Sequence[Candidate]
    batch: int
    objective: str
    options: SessionOptions
    max_drop: float | None
    deadline: float
    budget_s: float
    variant_maker: VariantMaker
    round_runner: RoundRunner
    judge: Judge | None
    progress: Progress
    remarks: list[str]
    compared: bool = False
    candidate_results: dict[str, CandidateResult] = field(default_factory=dict)
    forms: dict[str, Forms] = field(default_factory=dict)

    def run(self) -> Optimized:
        """Run or resume the search, with the directory locked.

        Raises UsageError if the directory contains something else or another search, or another
        process searches in it, and CheckFailedError if no candidate is right.
        """
        self._refuse_other_content()
        with locked_directory(self.place, "runs a search"):
            self._begin()
            return self._run()

    def _run(self) -> Optimized:
        self._enter([self.base])
        entered = self._enter(self.entrants)
        entered += self._enter(self._plainer(self.entrants))
        self._heats("open", entered, self.base)
        if not entered:  # no other variant could be made, so only options of the source are left
            self._race("open-1", [self.base], SCREENING)
        near: list[Candidate] = []
        while not near and self._alive():
            near = self._settled(self._near())
        self._vary(near)
        return self._concluded(self._final())

    def _refuse_other_content(self) -> None:
        """Raise UsageError if the directory contains anything but a search."""
        place = self.place
        with wrapping_os_errors(f"look at {place}"):
            held = place.is_dir() and any(path.name[0] != "." for path in place.iterdir())
        if held and not (place / SEARCH).exists():
            raise UsageError(f"{place} exists, and contains no search.", hint="Give another --out.")

    def _begin(self) -> None:
        """Resume the search in the directory, or start one.

        Raises UsageError if the directory contains a search with other settings.
        """
        sweep_below(self.place)
        body = plain(self._identity())
        path = self.place / SEARCH
        if path.is_file():
            before = read_document(path, SCHEMA)
            changed = [name for name, value in body.items() if before.get(name) != value]
            if changed:
                raise UsageError(
                    f"{self.place} contains another search: {' and '.join(changed)} differ.",
                    hint="Give another --out, or the same options to resume that one.",
                )
            self.progress.note(f"resuming the search in {self.place}")
            return
        write_document(path, seal(SCHEMA, body))

    def _identity(self) -> Json:
        """Return the settings that must be equal for a search to be resumed."""
        environment = describe_environment(self.options.threads)
        sets = self.round_runner.feeding.sets(self.batch)
        return {
            "source": self.given.digest,
            "batch": self.batch,
            "objective": self.objective,
            "max_drop": self.max_drop,
            "threads": self.options.threads,
            "rows": _digest_of(sets if self.judge is None else [*sets, *self.judge.arrays]),
            "calibration_data": self.variant_maker.data.name,
            "candidates": [one.to_json() for one in (self.base, *self.entrants, *self.late)],
            "processor": environment["cpu"]["model"],
            "cores": environment["cpu"]["available_cores"],
            "versions": environment["versions"],
            **({"gpus": environment["gpus"]} if self.base.runtime in FOR_CUDA else {}),
        }

    # The steps of the search.

    def _enter(self, entrants: Sequence[Candidate]) -> list[Candidate]:
        """Make the variants of new candidates, and return those whose variant could be made."""
        found = []
        for one in entrants:
            if one.name in self.candidate_results:
                continue
            self.candidate_results[one.name] = CandidateResult(candidate=one)
            try:
                self.forms[one.name] = self.variant_maker.make(one.form)
            except ToolkitError as error:
                self._drop(one, f"{one.form.name} could not be made: {error.problem}")
            else:
                found.append(one)
        return found

    def _plainer(self, entrants: Sequence[Candidate]) -> list[Candidate]:
        """Return candidates without passes for those whose rewritten graph could not be made."""
        return [
            replace(one, form=replace(one.form, passes=()))
            for one in entrants
            if one.form.passes == REWRITES
            and one.form.preset is None
            and one.name not in self.forms
        ]

    def _heats(self, name: str, entrants: Sequence[Candidate], beside: Candidate) -> None:
        """Measure candidates in rounds of at most HEAT, each in turn with `beside`.

        Candidates are dropped, with a reason, if they are not accurate enough or the budget is
        spent.
        """
        heats = [entrants[first : first + HEAT] for first in range(0, len(entrants), HEAT)]
        for number, heat in enumerate(heats, 1):
            title = f"{name}-{number}"
            if title != "open-1" and not self._time_for(title):
                self._leave_out([one for later in heats[number - 1 :] for one in later])
                return
            self._enter([one for one in heat if one.name not in self.candidate_results])
            ready = [one for one in heat if one.name in self.forms and self._accurate(one, name)]
            if ready:
                self._race(title, [beside, *ready], SCREENING)

    def _time_for(self, title: str) -> bool:
        """Return whether a round was started before, or the budget has room for it."""
        kept = RESERVED.get(title.partition("-")[0], 0.4) * self.budget_s
        return self.round_runner.begun(title) or self.deadline - time.monotonic() >= kept

    def _leave_out(self, entrants: Sequence[Candidate]) -> None:
        for one in entrants:
            self.candidate_results.setdefault(one.name, CandidateResult(candidate=one))
            self._drop(one, "not measured: the budget was spent")
        remark = "the budget was spent before all were measured: give a larger --budget to go on"
        self.remarks += [remark] if remark not in self.remarks else []

    def _race(self, name: str, entrants: Sequence[Candidate], procedure: Procedure) -> None:
        result = self.round_runner.known(name, entrants)
        if result is None:
            result = self.round_runner.measured(name, entrants, self.forms, procedure)
        first, beside = result.rows[0], self.candidate_results[entrants[0].name]
        if beside.row is None:
            beside = replace(beside, ratio=1.0, interval=(1.0, 1.0), typical=1.0)
        for one, row in zip(entrants, result.rows, strict=True):
            self.candidate_results[one.name] = updated_result(
                self.candidate_results[one.name], row, first, beside
            )

    def _near(self) -> list[Candidate]:
        """Return the candidates near enough to the best to try their options, the best first."""
        alive = sorted(self._alive(), key=self._value)
        near = [one for one in alive if self._value(one) <= FACTOR * self._value(alive[0])]
        return [one.candidate for one in near[:NEAREST]]

    def _settled(self, near: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates that are accurate enough, recalibrated where necessary."""
        found = []
        for one in near:
            tried: Candidate | None = one
            while tried is not None and not self._accurate(tried):
                tried = self._recalibrated(tried)
            if tried is not None:
                found.append(tried)
        return found

    def _recalibrated(self, one: Candidate) -> Candidate | None:
        """Return the candidate with the next calibration method that works, or None.

        Return None also for a variant without calibration, and if the budget is spent.
        """
        if one.form.preset is None or time.monotonic() > self.deadline:
            return None
        for method in METHODS[METHODS.index(one.form.method) + 1 :]:
            another = replace(one, form=replace(one.form, method=method))
            if self._enter([another]):
                return another
        return None

    def _verdict(self, one: Candidate) -> Verdict | None:
        if one.exact or self.judge is None:
            return None
        verdict = self.judge.of(one, self.forms[one.name])
        self.candidate_results[one.name] = replace(
            self.candidate_results[one.name], verdict=verdict
        )
        return verdict

    def _vary(self, near: Sequence[Candidate]) -> None:
        """Measure options one by one, then combinations of those that helped, then `late`."""
        best = min(
            self._alive(), key=self._value, default=self.candidate_results[self.base.name]
        ).candidate
        changed = {one.name: self._variants(one) for one in near}
        fresh = [one for one in near if self.candidate_results[one.name].row is None]
        others = [one for found in changed.values() for one in found]
        self._heats("vary", [*fresh, *others], best)
        together = []
        for one in near:
            better = [
                v for v in changed[one.name] if self._value_of(v) < BETTER * self._value_of(one)
            ]
            if len(better) > 1:
                together.append(combined(one, better))
        self._heats("combine", together, best)
        self._heats("late", self.late, best)

    def _variants(self, one: Candidate) -> list[Candidate]:
        """Return a candidate with options changed, and fewer threads only if a pass is brief."""
        took = self.candidate_results[one.name].median_ns
        brief = took is None or took < BRIEF_NS
        return [v for v in variants(one, self.batch) if brief or v.threads == one.threads]

    def _accurate(self, one: Candidate, title: str = "") -> bool:
        """Return whether a candidate is exact or accurate enough, and drop it if it is neither.

        Candidates of the rounds `open` are accepted unchecked, because only the few that turn out
        to be near the best need an accuracy check.
        """
        if title == "open":
            return True
        verdict = self._verdict(one)
        if verdict is not None and verdict.gate is not CheckOutcome.PASSED:
            self._drop(one, f"accuracy: {verdict.why}")
        return verdict is None or verdict.gate is CheckOutcome.PASSED

    def _final(self) -> list[str]:
        """Measure the finalists again, in turn with the baseline, and return their names.

        Without time for it, their earlier measurements stand. Raises CheckFailedError if no
        candidate is right.
        """
        finalists: list[Candidate] = []
        while not finalists:
            alive = sorted(self._alive(), key=self._value)
            if not alive:
                raise self._nothing_is_right()
            finalists = [one for one in self._hopeful(alive) if self._accurate(one)][:FINALISTS]
        if self._time_for("final"):
            others = [one for one in finalists if one != self.base]
            self._race("final", [self.base, *others], FINAL)
            self.compared = True
        else:
            self.remarks.append("the budget was spent before the best were measured once more")
        return [one.name for one in finalists]

    def _hopeful(self, alive: Sequence[CandidateResult]) -> list[Candidate]:
        """Return measured candidates in the order in which to consider them as finalists.

        First comes the best, then the plainest of those that may be as good, then the plainest and
        the fastest of each number of threads, then all others that may be as good. The cost of
        synchronising threads depends on the placement of a virtual machine's cores, which may
        change during a search. The best number of threads, and how they should wait, may then
        change too.
        """
        best = alive[0]
        able = [one for one in alive if self._may_beat(one, best)]
        limit = MOVED * self._value(best)
        near = [one for one in alive if self._value(one) <= limit]
        plainest = {one.candidate.threads: one for one in sorted(near, key=self._plainness)}
        quickest = {one.candidate.threads: one for one in reversed(near)}
        ordered = [
            best, min(able, key=self._effort), *plainest.values(), *quickest.values(), *able,
        ]  # fmt: skip
        return list({one.candidate.name: one.candidate for one in ordered}.values())

    def _concluded(self, finalists: Collection[str]) -> Optimized:
        """Choose among the finalists, write the bundle and the report, and return the result."""
        final = [one for one in self._alive() if one.candidate.name in finalists]
        chosen = self._chosen(sorted(final, key=self._value))
        found = Optimized(
            candidate_results=sorted(self.candidate_results.values(), key=self._order),
            chosen=chosen,
            pareto=pareto(self._alive()),
            ties=self._ties(chosen, final),
            bundle=self.place / BUNDLE,
            batch=self.batch,
            objective=self.objective,
            max_drop=self.max_drop,
            remarks=self.remarks,
        )
        assert chosen.row is not None
        artifact = next(
            one
            for one in self.forms[chosen.candidate.name]
            if one.digest == chosen.row.artifact_digest
        )
        write_bundle(self.place / BUNDLE, artifact, chosen, preprocessing_of(self.given))
        write_document(self.place / REPORT, seal(REPORT_SCHEMA, found.to_json()))
        return found

    def _chosen(self, final: Sequence[CandidateResult]) -> CandidateResult:
        """Return the plainest of the candidates within TIE of the best that is accurate enough.

        Unless the search is exact, accuracy is checked on all samples with the options of
        deployment. If all within TIE fail, the next best follow. Raises CheckFailedError if none is
        left.
        """
        remaining = list(final)
        while remaining:
            best = remaining[0]
            tied = [one for one in remaining if self._value(one) <= TIE * self._value(best)]
            for one in sorted(tied, key=self._effort):
                if self.judge is None:
                    return one
                candidate = one.candidate
                verdict = self.judge.of(candidate, self.forms[candidate.name], candidate.name)
                one = replace(one, verdict=verdict)
                self.candidate_results[candidate.name] = one
                if verdict.gate is CheckOutcome.PASSED:
                    return one
                self._drop(candidate, f"accuracy: {verdict.why}")
            remaining = [one for one in remaining if one not in tied]
        raise self._nothing_is_right()

    def _ties(self, chosen: CandidateResult, final: Sequence[CandidateResult]) -> list[str]:
        """Return the names of the finalists that may be as fast as the chosen one, or faster."""
        if not self.compared or self.objective not in ("latency", "throughput"):
            return []
        assert chosen.row is not None
        found = []
        for one in final:
            if one.candidate == chosen.candidate or one.row is None or one.out is not None:
                continue
            ratio = compare_rows(one.row, chosen.row, Scope.FORWARD)
            if ratio is not None and ratio.verdict is not Speed.SLOWER:
                found.append(one.candidate.name)
        return found

    # Queries used by the steps.

    def _alive(self) -> list[CandidateResult]:
        """Return candidates that were measured, are not dropped, and can run from a bundle."""
        return [
            one
            for one in self.candidate_results.values()
            if one.out is None
            and one.row is not None
            and one.candidate.runtime in PROGRAMS
            and self._value(one) < math.inf
        ]

    def _may_beat(self, one: CandidateResult, best: CandidateResult) -> bool:
        if self.objective not in ("latency", "throughput"):
            return True
        return one.bounds[0] <= best.bounds[1]

    def _value(self, candidate_result: CandidateResult) -> float:
        return candidate_result.value(self.objective)

    def _value_of(self, one: Candidate) -> float:
        candidate_result = self.candidate_results.get(one.name)
        return (
            math.inf
            if candidate_result is None or candidate_result.out
            else self._value(candidate_result)
        )

    def _effort(self, candidate_result: CandidateResult) -> int:
        return candidate_result.candidate.effort(self.options.threads)

    def _plainness(self, candidate_result: CandidateResult) -> tuple[int, float]:
        """Return a sort key that puts the plainest last, and the best last among equally plain."""
        return -self._effort(candidate_result), -self._value(candidate_result)

    def _order(self, candidate_result: CandidateResult) -> tuple[bool, float]:
        return candidate_result.out is not None, self._value(candidate_result)

    def _drop(self, one: Candidate, why: str) -> None:
        self.candidate_results[one.name] = replace(self.candidate_results[one.name], out=why)

    def _nothing_is_right(self) -> CheckFailedError:
        reasons = "; ".join(
            dict.fromkeys(one.out for one in self.candidate_results.values() if one.out)
        )
        return CheckFailedError(
            f"No variant of {self.given.path} passed the correctness check: {reasons}",
            hint="Run `toolkit bench` on it for more details of each.",
        )


def _digest_of(sets: Sequence[Feeds]) -> str:
    return digest_bytes(
        b"".join(
            f"{name} {array.dtype} {array.shape}".encode() + array.tobytes()
            for feeds in sets
            for name, array in sorted(feeds.items())
        )
    )

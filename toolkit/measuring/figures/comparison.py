"""Comparison of pairs of rows: A, the row in use, with B, its possible replacement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from toolkit.core.documents import Json
from toolkit.core.errors import UsageError
from toolkit.core.gates import CheckOutcome, overall
from toolkit.core.measurement import Result, Row, Scope
from toolkit.measuring.figures.statistics import Ratio
from toolkit.measuring.figures.summary import compare_apart, compare_rows, doubt_of

SCHEMA = "toolkit.compare/1"
TOLERANCE = 0.02

# Fields of the environment. If one of these differs, times cannot be compared ...
MACHINE = (
    "cpu.model",
    "cpu.flags",
    "cpu.available_cores",
    "cpu.container_cores",
    "gpus",
    "threads",
)
# ... and one of these may explain a difference in time.
CIRCUMSTANCES = ("cpu.governor", "platform", "python", "variables")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Time of B divided by time of A in one scope; `reason` says what is missing."""

    a: Row | None
    b: Row | None
    scope: Scope
    ratio: Ratio | None
    reason: str | None
    tolerance: float

    @property
    def row(self) -> Row:
        """B, or A if there is no B: source of what both share, i.e. runtime, batch and tuning."""
        found = self.b or self.a
        assert found is not None
        return found

    @property
    def gate(self) -> CheckOutcome:
        if self.ratio is None:
            return CheckOutcome.UNKNOWN
        if self.ratio.is_above(1 + self.tolerance):
            return CheckOutcome.FAILED
        interval = self.ratio.interval
        passed = interval is not None and interval[1] <= 1 + self.tolerance
        return CheckOutcome.PASSED if passed else CheckOutcome.UNKNOWN

    def to_json(self) -> Json:
        return {
            "runtime": self.row.runtime,
            "batch": self.row.batch,
            "tuning": dict(self.row.tuning),
            "scope": self.scope,
            "ratio": self.ratio and self.ratio.value,
            "ci95": self.ratio and self.ratio.interval and list(self.ratio.interval),
            "ci99": self.ratio and self.ratio.wide and list(self.ratio.wide),
            "verdict": self.ratio and self.ratio.verdict,
            "gate": self.gate,
            "reason": self.reason,
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Comparison of A with B, pair by pair. `paired` is whether their blocks were interleaved."""

    pairs: Sequence[Pair]
    paired: bool
    tolerance: float
    warnings: Sequence[str]
    results: Sequence[str]

    @property
    def gate(self) -> CheckOutcome:
        """FAILED if any pair failed, else UNKNOWN if any is inconclusive or there are no pairs."""
        return overall(pair.gate for pair in self.pairs)

    def to_json(self) -> Json:
        return {
            "schema": SCHEMA,
            "gate": self.gate,
            "tolerance": self.tolerance,
            "paired": self.paired,
            "pairs": [pair.to_json() for pair in self.pairs],
            "warnings": list(self.warnings),
            "results": list(self.results),
        }


def check_tolerance(tolerance: float) -> None:
    """Raise UsageError unless the tolerance is a fraction from 0 to 10."""
    if not 0 <= tolerance <= 10:
        raise UsageError(
            f"Got --tolerance {tolerance:g}, expected 0 to 10: a share, 0.05 being 5 %.",
            hint="Give, for example, --tolerance 0.05.",
        )


def paired(result: Result, tolerance: float) -> list[Pair]:
    """Compare the second row of each group with the first, in every scope that either has."""
    groups: dict[int, list[Row]] = {}
    for row in result.rows:
        groups.setdefault(row.group, []).append(row)
    return [
        pair
        for rows in groups.values()
        for pair in _pairs(rows[0], rows[1] if len(rows) > 1 else None, tolerance, in_turn=True)
    ]


def apart(a: Result, b: Result, tolerance: float) -> list[Pair]:
    """Compare the rows of two results that have the same runtime, tuning and batch.

    Rows of a runtime that does not compute the model, such as null, are left out. Several rows that
    agree in all three are matched in order.
    """
    left, right = _by_form(a), _by_form(b)
    return [
        pair
        for form in dict.fromkeys((*left, *right))
        for pair in _pairs(left.get(form), right.get(form), tolerance, in_turn=False)
    ]


def _by_form(result: Result) -> dict[tuple[object, ...], Row]:
    found: dict[tuple[object, ...], Row] = {}
    for row in result.rows:
        if row.computes:
            form = (row.runtime, row.batch, tuple(sorted(row.tuning.items())))
            count = sum(other[:-1] == form for other in found)
            found[(*form, count)] = row
    return found


def _pairs(a: Row | None, b: Row | None, tolerance: float, *, in_turn: bool) -> Iterator[Pair]:
    measured = [row for row in (a, b) if row is not None]
    scopes = dict.fromkeys(m.scope for row in measured for m in row.measurements if m.blocks)
    for scope in scopes or (Scope.FORWARD,):
        reason = next((f"{name}: {why}" for name, row in (("A", a), ("B", b))
                       if (why := doubt_of(row, scope))), None)  # fmt: skip
        ratio = None
        if a is not None and b is not None and reason is None:
            ratio = compare_rows(b, a, scope) if in_turn else compare_apart(b, a, scope)
            reason = _lack_of(ratio)
        yield Pair(a=a, b=b, scope=scope, ratio=ratio, reason=reason, tolerance=tolerance)


def refuse_other_machine(a: Result, b: Result) -> None:
    """Raise UsageError unless both results have the same kind of machine, threads and --cpus."""
    found = [
        f"{key} {_brief(one)} and {_brief(other)}"
        for key in MACHINE
        if (one := _look_up(a.environment, key)) != (other := _look_up(b.environment, key))
        and (one or other)  # no GPUs in one, none recorded in the other
    ]
    if a.plan["cpus"] != b.plan["cpus"]:
        found.append(f"--cpus {a.plan['cpus']} and {b.plan['cpus']}")
    if found:
        raise UsageError(
            f"{a.id} and {b.id} were measured on different machines or threads: "
            f"{'; '.join(found)}.",
            hint="Measure both on one machine: toolkit compare ARTIFACT_A ARTIFACT_B.",
        )


def differing_circumstances(a: Result, b: Result) -> list[str]:
    """Return a line for each other difference in environment, package versions and inputs."""
    lines = [
        f"{key} was {_brief(one)} for A and {_brief(other)} for B."
        for key in CIRCUMSTANCES
        if (one := _look_up(a.environment, key)) != (other := _look_up(b.environment, key))
    ]
    versions = [a.environment["versions"], b.environment["versions"]]
    for package in sorted({*versions[0], *versions[1]}):
        one, other = (found.get(package, "absent") for found in versions)
        if one != other:
            lines.append(f"{package} was {one} for A and {other} for B.")
    inputs = [one.plan.get("inputs", "unknown") for one in (a, b)]
    if inputs[0] != inputs[1]:
        lines.append(f"The inputs were {inputs[0]} for A and {inputs[1]} for B.")
    return lines


def _look_up(environment: object, path: str) -> object:
    found: object = environment
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _lack_of(ratio: Ratio | None) -> str | None:
    """Return why a ratio or its interval is missing, None if both are there."""
    if ratio is None:
        return "A median is 0, or no round has samples of both rows."
    if ratio.interval is None:
        return "One process: there is no interval. Give --processes 5 or more."
    return None

"""Outcome of a check: passed, failed or inconclusive."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class CheckOutcome(StrEnum):
    """Outcome of a check that B is not worse than A by more than is allowed."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


def overall(gates: Iterable[CheckOutcome]) -> CheckOutcome:
    """Return FAILED if any gate failed, else UNKNOWN if any is unknown or there is none."""
    found = set(gates)
    for gate in (CheckOutcome.FAILED, CheckOutcome.UNKNOWN):
        if gate in found:
            return gate
    return CheckOutcome.PASSED if found else CheckOutcome.UNKNOWN

"""What a check that may be impossible to decide comes to."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Gate(StrEnum):
    """Whether B is worse than A beyond what is allowed."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


def overall(gates: Iterable[Gate]) -> Gate:
    """FAILED if any failed, else UNKNOWN if any could not be told, or there is none."""
    found = set(gates)
    for gate in (Gate.FAILED, Gate.UNKNOWN):
        if gate in found:
            return gate
    return Gate.PASSED if found else Gate.UNKNOWN

"""What is known not to hold for a plugin, by its name and the test's."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

ExpectedFailures = Mapping[tuple[str, str], str]


def mark_expected(request: pytest.FixtureRequest, name: str, failures: ExpectedFailures) -> None:
    """The test must fail, where there is a reason for that; it fails if it does not."""
    if reason := failures.get((name, request.function.__name__)):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

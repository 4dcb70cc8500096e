"""Rates and their shares, from rows and ceilings that were made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.measuring.test_summary import measured, row
from toolkit.core.documents import Json
from toolkit.core.session import Provenance
from toolkit.core.work import Work
from toolkit.measuring.figures.roofline_share import rate_figures, work_figures

WORK = Work(
    matrix_operations=6_000_000, other_operations=9, least_bytes=300_000, unfused_bytes=900_000
)
ENVIRONMENT: Json = {
    "ceilings": {
        "operations_per_second": {"float32": 1.2e10, "bfloat16": 2.4e10},
        "copy_bytes_per_second": 1e8,
    }
}
NOTHING = dict.fromkeys(
    ("operations_per_second", "share_of_peak", "bytes_per_second", "share_of_copy")
)
ROW = row("openvino", measured(), work=WORK)
MILLISECOND = 1e6


def ran(precision: str) -> Provenance:
    return Provenance(runtime="r", version="1", device="cpu", precision=precision, threads=2)


def test_rates_are_of_the_median_and_shares_of_the_ceilings() -> None:
    """6 million operations and 300 kB in a millisecond: half the peak, and three times the copy."""
    assert rate_figures(ROW, MILLISECOND, ENVIRONMENT) == pytest.approx(
        {
            "operations_per_second": 6e9,
            "share_of_peak": 0.5,
            "bytes_per_second": 3e8,
            "share_of_copy": 3.0,
        }
    )


@pytest.mark.parametrize(
    ("precision", "share"),
    [("float32", 0.5), ("bfloat16", 0.25), ("int8", None), ("mixed", None), ("none", None)],
)
def test_the_ceiling_is_that_of_the_precision_that_ran(precision: str, share: float | None) -> None:
    figures = rate_figures(replace(ROW, provenance=ran(precision)), MILLISECOND, ENVIRONMENT)
    assert figures["share_of_peak"] == share
    assert figures["operations_per_second"] == 6e9


@pytest.mark.parametrize("environment", [{"ceilings": None}, {}])
def test_without_ceilings_there_are_rates_and_no_shares(environment: Json) -> None:
    figures = rate_figures(ROW, MILLISECOND, environment)
    assert figures["operations_per_second"] == 6e9
    assert (figures["share_of_peak"], figures["share_of_copy"]) == (None, None)


@pytest.mark.parametrize(
    ("changed", "median"),
    [
        ({"work": None}, MILLISECOND),
        ({"computes": False}, MILLISECOND),
        ({}, None),
        ({}, 0.0),
    ],
)
def test_nothing_is_said_of_a_row_without_work_or_time(changed: Json, median: float | None) -> None:
    assert rate_figures(replace(ROW, **changed), median, ENVIRONMENT) == NOTHING


def test_a_row_that_never_ran_has_no_share() -> None:
    figures = rate_figures(replace(ROW, provenance=None), MILLISECOND, ENVIRONMENT)
    assert figures["share_of_peak"] is None


def test_operations_that_could_not_be_counted_leave_the_bytes() -> None:
    unknown = replace(WORK, matrix_operations=None, uncounted={"If": 1})
    figures = rate_figures(replace(ROW, work=unknown), MILLISECOND, ENVIRONMENT)
    assert figures["operations_per_second"] is None
    assert figures["bytes_per_second"] == 3e8


def test_a_count_says_whether_it_is_whole() -> None:
    assert work_figures(WORK)["lower_bound"] is False
    assert work_figures(replace(WORK, uncounted={"If": 1}))["lower_bound"] is True

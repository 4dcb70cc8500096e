"""When a row did what it was asked to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

from toolkit.benchmarking.row_checks import ReferenceOutputs, bounds_for, fallback_of, judged
from toolkit.core.measurement import Agreement, Row, Status
from toolkit.core.session import Provenance
from toolkit.sources.resolve import open_artifact

FEEDS = [{"x": np.zeros(1, np.float32)}]
REFERENCE = [{"y": np.ones(1, np.float32)}]
EXPECTED = ReferenceOutputs(forms=(), feeds=FEEDS, outputs=REFERENCE)
CANCELLING = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 64] x) => (float[1, 64] y) <float hundred = {100}> {
  s = Add(x, hundred)
  y = Sub(s, hundred)
}
"""


def row(asked: str, ran: str, device: str = "cpu") -> Row:
    return Row(
        runtime="rt", artifact="a", artifact_digest="d", batch=1, status=Status.OK,
        precision_requested=asked,
        provenance=Provenance(runtime="rt", version="1", device=device, precision=ran, threads=1),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "ran", "device", "says"),
    [
        ("float32", "float32", "cpu", None),
        ("float32", "none", "none", None),
        ("int8", "mixed", "cpu", None),
        ("int8", "float32", "cpu", "Asked for int8, ran in float32."),
        ("float32", "mixed", "cpu", "Asked for float32, ran in mixed."),
        ("float32", "bfloat16", "cpu", "Asked for float32, ran in bfloat16."),
        ("float32", "tf32", "cpu", "Asked for float32, ran in tf32."),
        ("float32", "float32", "mixed", "Asked for the cpu, ran on mixed."),
        ("float16", "float32", "gpu", "Asked for float16, ran in float32. Asked for the cpu, "),
    ],
)
def test_a_fallback_is_named(asked: str, ran: str, device: str, says: str | None) -> None:
    found = fallback_of(row(asked, ran, device))
    assert (found is None) is (says is None)
    assert (found or "").startswith(says or "")


def test_a_row_that_computes_nothing_or_never_ran_falls_back_to_nothing() -> None:
    assert fallback_of(replace(row("float32", "int8"), computes=False)) is None
    assert fallback_of(replace(row("float32", "int8"), provenance=None)) is None


@pytest.mark.parametrize(
    ("asked", "ran", "bounds"),
    [
        ("float32", "bfloat16", "bfloat16"),
        ("float32", "tf32", "tf32"),
        ("float16", "float32", "float16"),
        ("int8", "float32", "int8"),
        ("float32", "none", "float32"),
        ("float32", "unknown", "float32"),
    ],
)
def test_bounds_are_those_of_the_coarser(asked: str, ran: str, bounds: str) -> None:
    assert bounds_for(row(asked, ran)) == bounds


def test_agreement_is_by_the_bounds_of_the_precision() -> None:
    def run(_: object, __: int) -> dict[str, np.ndarray]:
        return {"y": np.full(1, 1.001, np.float32)}

    assert not EXPECTED.agreement(run, "none").passed
    assert EXPECTED.agreement(run, "float16").passed


@pytest.mark.parametrize(("tolerance", "passed"), [(1e-2, True), (1e-4, False)])
def test_a_tolerance_takes_the_place_of_all_bounds(tolerance: float, passed: bool) -> None:
    def run(_: object, __: int) -> dict[str, np.ndarray]:
        return {"y": np.full(1, 1.001, np.float32)}

    expected = ReferenceOutputs(forms=(), feeds=FEEDS, outputs=REFERENCE, tolerance=tolerance)
    assert expected.agreement(run, "float32").passed is passed
    assert expected.agreement(run, "float16").passed is passed


@pytest.mark.parametrize(("off", "passed"), [(1e-5, True), (1e-3, False)])
def test_what_the_table_refuses_is_judged_by_the_oracle(
    off: float, passed: bool, tmp_path: Path
) -> None:
    """(x + 100) - 100 is off by up to 4e-6 in float32, which is more than 1e-5 of 0.2."""
    model = onnx.parser.parse_model(CANCELLING)
    onnx.save(model, tmp_path / "model.onnx")
    x = np.linspace(-0.2, 0.2, 64, dtype=np.float32).reshape(1, 64)
    y = (x + np.float32(100)) - np.float32(100)
    expected = ReferenceOutputs(
        forms=[open_artifact(tmp_path / "model.onnx")], feeds=[{"x": x}], outputs=[{"y": y}]
    )
    found = expected.agreement(lambda *_: {"y": y + np.float32(off)}, "float32")
    assert found.passed is passed
    told = found.remark if passed else found.reason
    assert told is not None
    assert "ONNX's reference evaluator in float64" in told


def test_a_row_is_judged_by_all_that_is_wrong() -> None:
    wrong = Agreement(passed=False, max_abs=1.0, max_rel=1.0, reason="y differs by 1")
    right = replace(row("float32", "int8"), parity=replace(wrong, passed=True, reason=None))
    assert judged(right, reference="torch") == right
    failed = judged(replace(right, parity=wrong), reference="torch", fallback="Ran elsewhere.")
    assert failed.status is Status.FAILED
    assert failed.reason is not None
    assert "Parity with torch: y differs by 1." in failed.reason
    assert "Ran elsewhere." in failed.reason
    assert judged(replace(failed, parity=right.parity), reference="torch").status is Status.OK


@pytest.mark.parametrize(("sessions", "asked"), [(1, [0, 0]), (3, [0, 0, 1, 2])])
def test_every_session_is_asked(sessions: int, asked: list[int]) -> None:
    seen: list[int] = []

    def run(_: object, session: int) -> dict[str, np.ndarray]:
        seen.append(session)
        return {"y": np.ones(1, np.float32) + (session == 2)}

    expected = ReferenceOutputs(forms=(), feeds=FEEDS * 2, outputs=REFERENCE * 2, tolerance=1e-5)
    passed = expected.agreement(run, "float32", sessions).passed
    assert (seen, passed) == (asked, sessions < 3)

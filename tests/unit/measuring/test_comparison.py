"""B against A, from rows that were made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from toolkit.core.errors import UsageError
from toolkit.core.measurement import (
    Agreement,
    Block,
    Measurement,
    Result,
    Row,
    Scope,
    Status,
)
from toolkit.measuring.figures.comparison import (
    CheckOutcome,
    Comparison,
    apart,
    check_tolerance,
    differing_circumstances,
    paired,
    refuse_other_machine,
)

MACHINE: dict[str, Any] = {
    "cpu": {
        "model": "x",
        "flags": ["avx2"],
        "available_cores": 2,
        "container_cores": None,
        "governor": None,
    },
    "threads": 2,
    "platform": "Linux",
    "python": "3.11",
    "variables": {},
    "versions": {"onnxruntime": "1.31.1"},
}
PLAN = {"cpus": None, "inputs": "random values, seed 0"}


def row(level: int, *, noise: float = 0.001, rounds: int = 20, seed: int = 0, **more: Any) -> Row:
    """A row of `rounds` blocks whose own levels scatter by `noise` about `level`.

    Four blocks at a time are of one process.
    """
    rng = np.random.default_rng(seed)
    blocks = tuple(
        Block(
            round=number,
            process=number // 4,
            lead=np.empty(0, np.int64),
            samples=(level * rng.normal(1, noise) * rng.normal(1, 0.001, 50)).astype(np.int64),
        )
        for number in range(rounds)
    )
    measured = Measurement(
        scope=Scope.FORWARD, warmup=np.empty(0, np.int64), settled=True, blocks=blocks
    )
    made = Row(
        runtime="onnxruntime",
        artifact="a.onnx",
        artifact_digest="sha256:1",
        batch=1,
        status=Status.OK,
        precision_requested="float32",
        parity=Agreement(passed=True, max_abs=0.0, max_rel=0.0),
        measurements=(measured,),
    )
    return replace(made, **more)


def result(*rows: Row, environment: Mapping[str, Any] = MACHINE, **plan: Any) -> Result:
    return Result(
        id="20260101T000000Z-00000000",
        created="2026-01-01T00:00:00+00:00",
        plan={**PLAN, **plan},
        rows=rows,
        environment=environment,
    )


@pytest.mark.parametrize(
    ("b", "tolerance", "gate"),
    [
        (row(1_000_000, seed=1), 0.01, CheckOutcome.PASSED),
        (row(800_000, seed=1), 0.01, CheckOutcome.PASSED),
        (row(1_030_000, seed=1), 0.01, CheckOutcome.FAILED),
        (row(1_030_000, seed=1), 0.05, CheckOutcome.PASSED),
        (row(1_000_000, noise=0.2, seed=1), 0.01, CheckOutcome.UNKNOWN),
        (row(1_000_000, rounds=4, seed=1), 0.01, CheckOutcome.UNKNOWN),
    ],
)
@pytest.mark.parametrize("in_turn", [True, False])
def test_the_gate(b: Row, tolerance: float, gate: CheckOutcome, in_turn: bool) -> None:
    a = row(1_000_000)
    pairs = paired(result(a, b), tolerance) if in_turn else apart(result(a), result(b), tolerance)
    assert [pair.gate for pair in pairs] == [gate]


def test_a_drift_that_meets_both_cancels_only_where_they_were_measured_in_turn() -> None:
    drift = np.linspace(1, 2, 20)

    def drifting(level: int, seed: int) -> Row:
        steady = row(level, seed=seed)
        (measured,) = steady.measurements
        blocks = tuple(
            replace(block, samples=(block.samples * factor).astype(np.int64))
            for block, factor in zip(measured.blocks, drift, strict=True)
        )
        return replace(steady, measurements=(replace(measured, blocks=blocks),))

    a, b = drifting(1_000_000, 0), drifting(1_050_000, 1)
    (in_turn,) = paired(result(a, b), 0.01)
    (by_itself,) = apart(result(a), result(b), 0.01)
    assert in_turn.gate is CheckOutcome.FAILED
    assert in_turn.ratio is not None
    assert in_turn.ratio.value == pytest.approx(1.05, rel=0.005)
    assert by_itself.gate is CheckOutcome.UNKNOWN


@pytest.mark.parametrize("in_turn", [True, False])
def test_one_process_has_a_ratio_without_an_interval(in_turn: bool) -> None:
    a, b = row(1_000_000, rounds=4), row(2_000_000, rounds=4, seed=1)
    (pair,) = paired(result(a, b), 0.01) if in_turn else apart(result(a), result(b), 0.01)
    assert pair.ratio is not None
    assert pair.ratio.value == pytest.approx(2, rel=0.01)
    assert (pair.gate, pair.to_json()["ci95"]) == (CheckOutcome.UNKNOWN, None)
    assert pair.reason is not None
    assert "--processes" in pair.reason


def test_rows_of_two_results_meet_by_runtime_batch_and_options() -> None:
    tuned = {"tuning": {"level": "basic"}}
    a = result(row(1000, batch=8), row(2000), row(3000, **tuned), row(1, computes=False))
    b = result(row(3000, **tuned), row(1000, batch=8), row(5000, runtime="openvino"), row(2000))
    pairs = apart(a, b, 0.01)
    both = [(p.a, p.b) for p in pairs if p.a and p.b]
    assert {(one.batch, tuple(one.tuning)) for one, _ in both} == {
        (8, ()),
        (1, ()),
        (1, ("level",)),
    }
    assert all(
        one.measurements[0].samples[0] == other.measurements[0].samples[0] for one, other in both
    )
    (alone,) = [pair for pair in pairs if pair.a is None]
    assert (alone.row.runtime, alone.reason, alone.gate) == (
        "openvino",
        "A: No such row.",
        CheckOutcome.UNKNOWN,
    )


@pytest.mark.parametrize(
    ("flaw", "said"),
    [
        ({"status": Status.FAILED, "reason": "Parity: y differs."}, "B: Parity: y differs."),
        ({"parity": None}, "B: Its outputs were not checked against the reference."),
        ({"measurements": ()}, "B: Not measured in forward."),
    ],
)
def test_a_row_in_doubt_decides_nothing(flaw: dict[str, Any], said: str) -> None:
    (pair,) = paired(result(row(1000), row(500, **flaw)), 0.01)
    assert (pair.ratio, pair.reason, pair.gate) == (None, said, CheckOutcome.UNKNOWN)


@pytest.mark.parametrize(
    ("gates", "expected"),
    [
        ([], CheckOutcome.UNKNOWN),
        ([1_000_000, 1_000_000], CheckOutcome.PASSED),
        ([1_000_000, 1_100_000], CheckOutcome.FAILED),
    ],
)
def test_the_worst_pair_decides(gates: list[int], expected: CheckOutcome) -> None:
    rows = [
        one
        for group, level in enumerate(gates)
        for one in (row(1_000_000, group=group), row(level, group=group, seed=1))
    ]
    comparison = Comparison(
        pairs=paired(result(*rows), 0.01), paired=True, tolerance=0.01, warnings=(), results=()
    )
    assert comparison.gate is expected
    assert comparison.to_json()["gate"] == expected


@pytest.mark.parametrize(
    "other",
    [
        {"cpu": {**MACHINE["cpu"], "model": "y"}},
        {"cpu": {**MACHINE["cpu"], "flags": []}},
        {"cpu": {**MACHINE["cpu"], "container_cores": 1.5}},
        {"threads": 1},
    ],
)
def test_results_of_other_machines_or_threads_are_refused(other: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="different machines or threads"):
        refuse_other_machine(result(), result(environment={**MACHINE, **other}))


def test_other_pinning_is_refused_and_the_same_machine_is_not() -> None:
    refuse_other_machine(result(), result())
    with pytest.raises(UsageError, match=r"--cpus None and \[0\]"):
        refuse_other_machine(result(), result(cpus=[0]))


def test_other_versions_variables_and_inputs_are_said() -> None:
    other = {**MACHINE, "versions": {"openvino": "1"}, "variables": {"OMP_NUM_THREADS": "1"}}
    lines = differing_circumstances(result(), result(environment=other, inputs="rows of x.npz"))
    assert lines == [
        "variables was {} for A and {'OMP_NUM_THREADS': '1'} for B.",
        "onnxruntime was 1.31.1 for A and absent for B.",
        "openvino was absent for A and 1 for B.",
        "The inputs were random values, seed 0 for A and rows of x.npz for B.",
    ]
    assert differing_circumstances(result(), result()) == []


@pytest.mark.parametrize("tolerance", [-0.01, 11, float("nan"), float("inf")])
def test_a_tolerance_that_is_no_share_is_refused(tolerance: float) -> None:
    with pytest.raises(UsageError, match="--tolerance"):
        check_tolerance(tolerance)

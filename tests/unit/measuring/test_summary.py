"""The figures of rows that were made by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from toolkit.core.codec import decode, encode
from toolkit.core.documents import Json
from toolkit.core.measurement import (
    Agreement,
    Block,
    Measurement,
    Opening,
    Result,
    Row,
    Scope,
    Status,
)
from toolkit.core.session import Provenance
from toolkit.core.work import Work
from toolkit.measuring.figures.summary import result_figures, row_figures


def measured(scope: Scope = Scope.FORWARD, level: int = 1000, runs: int = 20) -> Measurement:
    """Ten blocks of `runs` samples about `level`, two of each process.

    The lead and the warm-up are far off.
    """
    rng = np.random.default_rng(0)
    return Measurement(
        scope=scope,
        warmup=np.full(5, 10**9, np.int64),
        settled=True,
        blocks=tuple(
            Block(
                round=number,
                process=number // 2,
                lead=np.full(2, 10**8, np.int64),
                samples=rng.integers(level - level // 100, level + level // 100, runs),
            )
            for number in range(10)
        ),
    )


def row(runtime: str, *measurements: Measurement, batch: int = 1, **changes: object) -> Row:
    made = Row(
        runtime=runtime,
        artifact="/models/lenet.onnx",
        artifact_digest="sha256:1",
        batch=batch,
        status=Status.OK,
        precision_requested="float32",
        openings=(
            Opening(
                import_ns=1,
                open_ns=20,
                first_run_ns=300,
                import_bytes=5000,
                open_bytes=-60,
                first_run_bytes=7,
            ),
        ),
        parity=Agreement(passed=True, max_abs=1e-7, max_rel=2e-7),
        provenance=Provenance(
            runtime=runtime, version="1", device="cpu", precision="float32", threads=2
        ),
        measurements=measurements,
        peak_rss_bytes=123_456,
        artifact_bytes=789,
    )
    return replace(made, **changes)


PLAN = {
    "artifact": "runs/lenet",
    "runtimes": ["onnxruntime"],
    "batches": [1],
    "inputs": "random values, seed 0",
    "options": {"threads": 2},
    "cpus": None,
}
ENVIRONMENT = {
    "cpu": {
        "model": "é",
        "flags": ["avx2"],
        "logical_cores": 2,
        "available_cores": 2,
        "container_cores": None,
    },
    "memory_bytes": 2**30,
    "platform": "Linux",
    "python": "3.11",
    "commit": None,
    "versions": {},
    "variables": {},
}


def result(*rows: Row) -> Result:
    return Result(
        id="20260101T000000Z-00000000",
        created="2026-01-01T00:00:00+00:00",
        plan=PLAN,
        rows=rows,
        environment=ENVIRONMENT,
        warnings=("busy",),
    )


WORK = Work(
    matrix_operations=10**6,
    other_operations=10,
    least_bytes=200,
    unfused_bytes=300,
    uncounted={"If": 1},
)


def figures_of(only: Row) -> Json:
    return row_figures(result(only), only)


FAILED = {"status": Status.FAILED, "reason": "Parity with torch: y differs by 1."}
UNAVAILABLE = Row(
    runtime="openvino",
    artifact="/models/lenet.onnx",
    artifact_digest="sha256:1",
    batch=1,
    status=Status.UNAVAILABLE,
    reason="not installed",
    precision_requested="float32",
)


def test_the_names_are_those_that_checks_read() -> None:
    only = row("torch", measured())
    figures = figures_of(only)
    assert {key: figures[key] for key in ("runtime", "artifact", "batch", "status", "reason")} == {
        "runtime": "torch",
        "artifact": "/models/lenet.onnx",
        "batch": 1,
        "status": "ok",
        "reason": None,
    }
    assert figures["precision"] == {"requested": "float32", "ran": "float32"}
    assert figures["parity"] == {
        "passed": True,
        "max_abs": 1e-7,
        "max_rel": 2e-7,
        "reason": None,
        "remark": None,
    }
    assert figures["memory"] == {"peak_rss_bytes": 123_456, "artifact_bytes": 789}
    assert figures["provenance"]["version"] == "1"
    assert figures["scopes"].keys() == {"forward", "open"}
    assert figures["scopes"]["open"]["median_ns"] == 321
    assert figures["scopes"]["forward"].keys() >= {
        *("median_ns", "ci95_ns", "mean_ns", "std_ns", "min_ns"),
        *("p90_ns", "p95_ns", "p99_ns", "p99_9_ns", "samples", "warmup"),
    }
    assert figures["ratio"].keys() >= {"baseline", "value", "ci95", "verdict"}


def test_scope_figures_are_of_the_samples_only() -> None:
    """Neither warm-up nor leads, both far off here, are in any figure."""
    measurement = measured(runs=700)
    only = row("torch", measurement, batch=4)
    figures = figures_of(only)["scopes"]["forward"]
    samples = measurement.samples
    assert (figures["samples"], figures["warmup"], figures["blocks"]) == (7000, 5, 10)
    medians = [np.median(process) for process in measurement.samples_of_processes]
    assert figures["median_ns"] == pytest.approx(np.exp(np.mean(np.log(medians))))
    assert figures["mean_ns"] == pytest.approx(samples.mean())
    assert figures["std_ns"] == pytest.approx(samples.std(ddof=1))
    assert figures["min_ns"] == samples.min()
    for name, q in (("p90_ns", 90), ("p95_ns", 95), ("p99_ns", 99), ("p99_9_ns", 99.9)):
        assert figures[name] == np.percentile(samples, q)
    low, high = figures["ci95_ns"]
    assert low <= figures["median_ns"] <= high
    assert figures["median_ns_per_sample"] == figures["median_ns"] / 4
    assert figures["samples_per_second"] == pytest.approx(4e9 / figures["median_ns"])


@pytest.mark.parametrize(
    ("runs", "absent"),
    [
        (1, {"p90_ns", "p95_ns", "p99_ns", "p99_9_ns"}),
        (7, {"p95_ns", "p99_ns", "p99_9_ns"}),
        (66, {"p99_ns", "p99_9_ns"}),
        (67, {"p99_9_ns"}),
    ],
)
def test_a_figure_of_too_few_samples_is_none(runs: int, absent: set[str]) -> None:
    """Ten blocks of `runs`."""
    only = row("torch", measured(runs=runs))
    figures = figures_of(only)["scopes"]["forward"]
    names = {name for name, value in figures.items() if name.endswith("_ns") and value is None}
    assert {name for name in names if "_ci95_" not in name} == absent


def test_percentiles_have_intervals_over_processes() -> None:
    figures = figures_of(row("torch", measured(runs=70)))["scopes"]["forward"]
    for name in ("p90", "p95"):
        low, high = figures[f"{name}_ci95_ns"]
        assert low <= figures[f"{name}_ns"] <= high
    assert figures["p99_9_ci95_ns"] is None
    assert figures["processes"] == 5


def test_one_process_has_no_interval_and_no_verdict() -> None:
    def alone(level: int) -> Measurement:
        several = measured(level=level)
        return replace(several, blocks=tuple(replace(b, process=0) for b in several.blocks))

    rows = (row("torch", alone(1000)), row("onnxruntime", alone(500)))
    figures = row_figures(result(*rows), rows[1])
    assert figures["scopes"]["forward"]["ci95_ns"] is None
    ratio = figures["ratio"]
    assert ratio["value"] == pytest.approx(0.5, rel=0.01)
    assert (ratio["ci95"], ratio["ci99"], ratio["verdict"]) == (None, None, "UNCLEAR")


def test_figures_say_how_processes_differ_and_what_narrows_the_interval() -> None:
    rng = np.random.default_rng(0)

    def differing() -> Measurement:
        steady = measured()
        blocks = (replace(steady.blocks[0], round=n, process=n // 6) for n in range(24))
        factors = np.repeat(np.exp(rng.normal(0, 0.1, 4)), 6)
        return replace(
            steady,
            blocks=tuple(
                replace(block, samples=(block.samples * factor).astype(np.int64))
                for block, factor in zip(blocks, factors, strict=True)
            ),
        )

    rows = (row("torch", differing()), row("onnxruntime", differing()))
    figures = row_figures(result(*rows), rows[1])
    for found in (figures["scopes"]["forward"]["spread"], figures["ratio"]["spread"]):
        assert found["total"] > 0.02 > found["rounds"]
        assert found["remedy"] == "more processes"


def test_rows_are_compared_with_the_first_of_their_group() -> None:
    rows = (
        row("torch", measured(level=1000)),
        row("onnxruntime", measured(level=500)),
        row("torch", measured(level=9000), group=1),
        row("onnxruntime", measured(level=18000), group=1),
    )
    ratios = [row_figures(result(*rows), one)["ratio"] for one in rows]
    assert [one["baseline"] for one in ratios] == ["torch"] * 4
    assert [one["value"] for one in ratios] == pytest.approx([1, 0.5, 1, 2], rel=0.01)
    assert [one["verdict"] for one in ratios] == ["SAME", "FASTER", "SAME", "SLOWER"]
    assert ratios[0]["ci95"] == [1.0, 1.0]


def test_every_scope_has_its_own_ratio_and_the_first_is_the_rows() -> None:
    rows = (
        row("torch", measured(level=1000), measured(Scope.END_TO_END, level=4000)),
        row("onnxruntime", measured(level=500), measured(Scope.END_TO_END, level=8000)),
    )
    figures = row_figures(result(*rows), rows[1])
    scopes = (Scope.FORWARD, Scope.END_TO_END)
    verdicts = {name: figures["scopes"][name]["ratio"]["verdict"] for name in scopes}
    assert verdicts == {"forward": "FASTER", "end_to_end": "SLOWER"}
    assert figures["ratio"]["scope"] == "forward"


def test_a_failed_row_has_its_times_and_no_ratio() -> None:
    rows = (row("torch", measured()), row("onnxruntime", measured(level=500), **FAILED))
    figures = row_figures(result(*rows), rows[1])
    assert (figures["status"], figures["reason"]) == ("failed", FAILED["reason"])
    assert figures["scopes"]["forward"]["median_ns"] == pytest.approx(500, rel=0.02)
    assert figures["ratio"] is None
    assert figures["scopes"]["forward"]["ratio"] is None


def test_a_failed_baseline_leaves_no_ratio_for_the_others() -> None:
    rows = (row("torch", measured(), **FAILED), row("onnxruntime", measured(level=500)))
    assert row_figures(result(*rows), rows[1])["ratio"] is None


def test_a_failed_baseline_has_no_ratio_to_itself() -> None:
    rows = (row("torch", measured(), **FAILED), row("onnxruntime", measured(level=500)))
    assert row_figures(result(*rows), rows[0])["ratio"] is None


@pytest.mark.parametrize("position", [0, 1])
def test_a_row_that_computes_nothing_is_not_compared(position: int) -> None:
    rows = [row("torch", measured()), row("onnxruntime", measured())]
    rows[position] = row("null", measured(level=100), computes=False)
    made = result(*rows)
    assert row_figures(made, rows[position])["ratio"] is None
    assert (row_figures(made, rows[1 - position])["ratio"] is None) == (position == 0)


def test_a_row_that_never_opened_has_no_figures() -> None:
    figures = row_figures(result(UNAVAILABLE), UNAVAILABLE)
    assert figures["status"] == "unavailable"
    assert figures["reason"] == "not installed"
    assert figures["scopes"] == {}
    assert figures["precision"] == {"requested": "float32", "ran": None}
    assert (figures["ratio"], figures["parity"], figures["provenance"]) == (None, None, None)


def test_only_forward_passes_have_rates() -> None:
    only = row("torch", measured(), measured(Scope.END_TO_END), work=WORK)
    figures = figures_of(only)
    forward, end_to_end = (figures["scopes"][scope] for scope in (Scope.FORWARD, Scope.END_TO_END))
    median = forward["median_ns"]
    assert forward["operations_per_second"] == pytest.approx(WORK.matrix_operations * 1e9 / median)
    assert "operations_per_second" not in end_to_end
    assert figures["work"]["unfused_bytes"] == WORK.unfused_bytes


MIXED = (
    row("torch", measured(), measured(Scope.END_TO_END), work=WORK),
    row("onnxruntime", measured(runs=1)),
    row("torch-compile", replace(measured(), blocks=())),
    row("null", measured(level=100), computes=False, parity=None),
    UNAVAILABLE,
)


def test_the_whole_result_is_strict_json() -> None:
    figures = result_figures(result(*MIXED))
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["schema"] == "toolkit.bench/1"
    assert [one["runtime"] for one in figures["rows"]] == [one.runtime for one in MIXED]
    assert figures["warnings"] == ["busy"]
    assert figures["environment"] == ENVIRONMENT


def test_a_result_survives_json() -> None:
    made = result(*MIXED)
    text = json.dumps(encode(made), allow_nan=False)
    again = decode(json.loads(text), Result, "a test")
    assert encode(again) == encode(made)
    assert result_figures(again) == result_figures(made)
    block = again.rows[0].measurements[0].blocks[3]
    assert block.samples.dtype == np.int64
    np.testing.assert_array_equal(block.samples, MIXED[0].measurements[0].blocks[3].samples)
    assert again.rows[-1].status is Status.UNAVAILABLE
    assert (again.rows[0].work, again.rows[1].work) == (WORK, None)

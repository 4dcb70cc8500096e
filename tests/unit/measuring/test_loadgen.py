"""The arithmetic of percentiles and early stopping against MLCommons LoadGen, on its own runs."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import mlperf_loadgen as loadgen
import numpy as np
import pytest

from toolkit.measuring.figures.statistics import early_stopping, fewest_samples

QUERIES = 1501  # so that no percentile falls on a whole rank
NUMBER = re.compile(r"^(?P<name>.*?)\s*:\s*(?P<value>\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """What LoadGen wrote: the latency of each query, what it says of them, and its settings."""

    latencies: np.ndarray
    summary: str

    def figure(self, name: str) -> int:
        (value,) = (m["value"] for m in NUMBER.finditer(self.summary) if m["name"].strip() == name)
        return int(value)


def run_loadgen(place: Path, scenario: str, **settings: object) -> Run:
    """A run of so many queries, each answered after a nap."""
    test = loadgen.TestSettings()
    test.scenario = getattr(loadgen.TestScenario, scenario)
    test.mode = loadgen.TestMode.PerformanceOnly
    test.min_query_count = test.max_query_count = QUERIES
    test.min_duration_ms = 1
    for name, value in settings.items():
        setattr(test, name, value)
    log = loadgen.LogSettings()
    log.enable_trace = True
    log.log_output.outdir = str(place)
    log.log_output.copy_summary_to_stdout = False
    rng = np.random.default_rng(0)

    def issue(queries: list[loadgen.QuerySample]) -> None:
        for query in queries:
            time.sleep(rng.exponential(1e-4))
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(query.id, 0, 0)])

    system = loadgen.ConstructSUT(issue, lambda: None)
    library = loadgen.ConstructQSL(4, 4, lambda rows: None, lambda rows: None)
    loadgen.StartTestWithLogSettings(system, library, test, log)
    loadgen.DestroyQSL(library)
    loadgen.DestroySUT(system)
    # Its trace is not always JSON that can be parsed.
    trace = (place / "mlperf_log_trace.json").read_text()
    latencies = np.array(re.findall(r'"complete_ns":(\d+)', trace), np.int64)
    assert len(latencies) == QUERIES
    return Run(latencies, (place / "mlperf_log_summary.txt").read_text())


@pytest.fixture(scope="module")
def single_stream(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_loadgen(
        tmp_path_factory.mktemp("single"), "SingleStream", single_stream_expected_latency_ns=100_000
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_loadgen(
        tmp_path_factory.mktemp("server"),
        "Server",
        server_target_qps=2000,
        server_target_latency_ns=200_000,
    )


@pytest.mark.parametrize("q", [90.0, 99.0])
def test_early_stopping_is_loadgen_s(single_stream: Run, q: float) -> None:
    name = f"* Early stopping {q:.1f}th percentile estimate"
    assert early_stopping(single_stream.latencies, q) == single_stream.figure(name)


def test_the_fewest_queries_are_loadgen_s(single_stream: Run) -> None:
    fewest = re.search(r"Processed at least (\d+) queries", single_stream.summary)
    assert fewest is not None
    assert fewest_samples(90.0) == int(fewest[1])


def test_loadgen_asks_for_as_many_queries_more_as_early_stopping_needs(server: Run) -> None:
    """With t queries beyond the bound, so many as let t be discarded, and not one fewer."""
    more = re.search(r"Would need to run at least (\d+) more", server.summary)
    assert more is not None, server.summary
    beyond = int((server.latencies > 200_000).sum())
    needed = QUERIES + int(more[1])

    def discarded(n: int) -> int:
        return n - int(early_stopping(np.arange(n), 99.0) or 0)

    assert (discarded(needed - 1), discarded(needed)) == (beyond - 1, beyond)


@pytest.mark.parametrize("scenario", ["single_stream", "server"])
def test_percentiles_are_loadgen_s(scenario: str, request: pytest.FixtureRequest) -> None:
    """LoadGen takes the sample of rank floor(n q); ours interpolates between it and a neighbour."""
    run: Run = request.getfixturevalue(scenario)
    samples = np.sort(run.latencies)
    for q in (50.0, 90.0, 95.0, 97.0, 99.0, 99.9):
        theirs = run.figure(f"{q:.2f} percentile latency (ns)")
        assert np.percentile(samples, q, method="inverted_cdf") == theirs
        rank = int(QUERIES * q / 100)
        assert samples[rank - 1] <= np.percentile(samples, q) <= samples[rank + 1]
    assert run.figure("Min latency (ns)") == samples[0]
    assert run.figure("Max latency (ns)") == samples[-1]
    assert run.figure("Mean latency (ns)") == samples.sum() // QUERIES

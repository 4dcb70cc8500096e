"""`toolkit bench --scenario`, as a user meets it."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

import toolkit
from tests.conftest import TOOLKIT, Run, workers_of
from toolkit.core.codec import decode
from toolkit.core.errors import UsageError
from toolkit.core.measurement import Row
from toolkit.measuring.load_test.queueing import latencies
from toolkit.measuring.load_test.scenarios import WINDOWS, Traffic
from toolkit.measuring.timing.engine import Procedure

QUICK = ("--threads", 1, "--max-seconds", 1, "--warmup", 3)


def stored_rows(place: Path) -> list[Row]:
    (path,) = (place / "results").glob("*.json")
    return decode(json.loads(path.read_text())["rows"], list[Row], path)


@pytest.mark.parametrize(
    ("scenario", "options", "clients"),
    [
        ("single", (), 1),
        ("server", ("--qps", 200), 1),
        ("offline", ("--concurrency", 2, "--batch", 4), 2),
    ],
)
def test_a_scenario_is_measured_stored_and_shown_again(
    toolkit_cli: Run,
    artifact_dir: Path,
    tmp_path: Path,
    scenario: str,
    options: tuple[object, ...],
    clients: int,
) -> None:
    runtimes = ("--runtime", "onnxruntime,null")
    done = toolkit_cli(
        "bench", artifact_dir, *runtimes, "--scenario", scenario, *options, *QUICK, "--json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["plan"]["traffic"]["scenario"] == scenario
    assert found["plan"]["scopes"] == []
    row, null = found["rows"]
    assert row["parity"]["passed"]
    assert row["scopes"].keys() == {"open"}
    served = row["served"]
    assert (served["scenario"], served["concurrency"]) == (scenario, clients)
    assert (served["windows"], served["warmup"]) == (WINDOWS, 3 * clients * WINDOWS)
    assert served["queries"]["answered"] >= 100
    assert served["samples_per_second"] == served["achieved_qps"] * row["batch"]
    assert null["ratio"] is None

    stored = stored_rows(tmp_path)[0].served
    assert stored is not None
    if scenario == "offline":
        assert served["latency"] is None
        assert not any(window.scheduled.any() for window in stored.windows)
    else:
        assert served["latency"]["median_ns"] == np.median(latencies(stored.windows))
    assert (served["waiting_share"] is not None) is (scenario == "server")
    assert served["asked_qps"] == (200 if scenario == "server" else None)

    shown = toolkit_cli("results", "show", found["id"], "--percentiles", "75")
    assert shown.returncode == 0, shown.stderr
    assert f"{scenario}, batch {row['batch']}, {clients} client" in shown.stdout
    assert ("p75" in shown.stdout) is (scenario != "offline")


def test_rows_are_compared_with_the_first(toolkit_cli: Run, artifact_dir: Path) -> None:
    done = toolkit_cli(
        "bench", artifact_dir, "--runtime", "onnxruntime,torch", "--scenario", "single", *QUICK
    )
    assert done.returncode == 0, done.stderr
    assert "(ratio: median latency over that of onnxruntime)" in done.stdout
    assert "baseline" in done.stdout


def test_a_rate_that_no_runtime_can_hold_is_said_and_comes_to_an_end(
    toolkit_cli: Run, artifact_dir: Path
) -> None:
    done = toolkit_cli(
        "bench", artifact_dir, "--runtime", "torch", "--scenario", "server", "--qps", 90_000,
        *QUICK, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    served = found["rows"][0]["served"]
    queries = served["queries"]
    assert queries["answered"] < queries["asked"]
    assert served["held"] is False
    assert served["latency"]["p99_ns"] is None
    said = f"torch answered {queries['answered']:,} of {queries['asked']:,} in"
    assert any(said in warning for warning in found["warnings"])


def test_the_largest_rate_is_found(toolkit_cli: Run, artifact_dir: Path) -> None:
    done = toolkit_cli(
        "bench", artifact_dir, "--runtime", "onnxruntime", "--scenario", "server",
        "--find-qps", "--p99-ms", 500, "--concurrency", 2, *QUICK, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    search = found["rows"][0]["served"]["search"]
    held, failed = search["largest_held_qps"], search["smallest_not_held_qps"]
    assert 0 < held < failed <= 1.05 * held
    assert {one["held"] for one in search["tries"]} == {True, False}
    assert all(one["asked"] >= 662 for one in search["tries"])
    shown = toolkit_cli("results", "show", found["id"])
    assert "the largest rate with a p99 within 500 ms" in shown.stdout


def test_a_bound_below_any_query_s_time_is_answered(toolkit_cli: Run, artifact_dir: Path) -> None:
    done = toolkit_cli(
        "bench", artifact_dir, "--runtime", "onnxruntime", "--scenario", "server",
        "--find-qps", "--p99-ms", 0.001, *QUICK,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "onnxruntime, batch 1: none: served alone, a query takes" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_was_answered_is_kept(artifact_dir: Path, tmp_path: Path, number: int) -> None:
    """Ctrl-C for all, or the end of one worker, in the third of six rounds."""
    command = [
        TOOLKIT, "bench", artifact_dir, "--runtime", "onnxruntime,openvino", "--scenario",
        "server", "--qps", "50", "--max-seconds", "5", "--threads", "1", "--warmup", "3",
    ]  # fmt: skip
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("open 3 of 6, batch 1 2/2"))
        workers = workers_of(process, 2)
        (process if number == signal.SIGINT else workers[0]).send_signal(number)
        stdout, stderr = process.communicate(timeout=120)
    assert "Traceback" not in stderr
    assert not any(worker.is_running() for worker in workers)
    killed, other = stored_rows(tmp_path)
    assert killed.served is not None
    assert other.served is not None
    assert 2 <= len(killed.served.windows) < WINDOWS
    assert sum(window.answered for window in killed.served.windows) >= 80
    if number == signal.SIGINT:
        assert process.returncode == 130
    else:
        assert process.returncode == 0
        assert "SIGKILL" in (killed.reason or "")
        assert len(other.served.windows) == WINDOWS
        assert "onnxruntime, batch 1" in stdout


def test_it_is_a_python_function_too(artifact_dir: Path, tmp_path: Path) -> None:
    result = toolkit.bench(
        artifact_dir,
        runtimes=["null"],
        threads=1,
        traffic=Traffic(scenario="server", qps=100, concurrency=3),
        procedure=Procedure(max_seconds=0.5, warmup=1),
        out=tmp_path,
    )
    served = result.rows[0].served
    assert served is not None
    assert (served.concurrency, sum(window.asked for window in served.windows)) == (3, 48)


@pytest.mark.parametrize("options", [{"scopes": ["forward"]}, {"procedure": Procedure(runs=20)}])
def test_a_scenario_takes_no_scopes_and_no_runs(
    artifact_dir: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    with pytest.raises(UsageError, match="cenario"):
        toolkit.bench(
            artifact_dir, traffic=Traffic(scenario="single"), out=tmp_path / "new", **options
        )
    assert not (tmp_path / "new").exists()


SERVER = ("--scenario", "server")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--scenario", "sever"), "Did you mean 'server'?"),
        (SERVER, "needs a rate"),
        ((*SERVER, "--qps", "0"), "Got --qps 0"),
        ((*SERVER, "--qps", "-5"), "Got --qps -5"),
        ((*SERVER, "--qps", "nan"), "Got --qps nan"),
        ((*SERVER, "--qps", "inf"), "Got --qps inf"),
        ((*SERVER, "--qps", "x"), "--qps"),
        ((*SERVER, "--qps", "1"), "fewer than 11"),
        ((*SERVER, "--qps", "5", "--p99-ms", "5"), "--p99-ms without --find-qps"),
        ((*SERVER, "--find-qps"), "without the latency"),
        ((*SERVER, "--find-qps", "--p99-ms", "0"), "Got --p99-ms 0"),
        ((*SERVER, "--find-qps", "--p99-ms", "5", "--qps", "5"), "together with --find-qps"),
        (("--scenario", "single", "--qps", "5"), "follow no schedule"),
        (("--scenario", "offline", "--find-qps", "--p99-ms", "5"), "follow no schedule"),
        (("--scenario", "single", "--concurrency", "0"), "Got --concurrency 0"),
        (("--scenario", "single", "--concurrency", "-2"), "Got --concurrency -2"),
        (("--scenario", "single", "--concurrency", "999"), "Got --concurrency 999"),
        (("--scenario", "single", "--scope", "forward"), "together with scopes"),
        (("--scenario", "single", "--runs", "100"), "--runs or --target-ci"),
        (("--scenario", "single", "--max-seconds", "0"), "Got --max-seconds 0"),
        (("--qps", "5"), "Got --qps without --scenario"),
        (("--find-qps", "--p99-ms", "5"), "Got --find-qps and --p99-ms without --scenario"),
        (("--concurrency", "2"), "Got --concurrency without --scenario"),
    ],
)
def test_wrong_use(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    done = toolkit_cli("bench", artifact_dir, *options)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []

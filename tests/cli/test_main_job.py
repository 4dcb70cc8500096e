"""A user's way from nothing to a number, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import runtimes
from tests.conftest import Run

RUNTIMES = "torch,torch-compile,onnxruntime,openvino"


def test_training_reaches_its_accuracy(checkpoint_dir: Path) -> None:
    manifest = json.loads((checkpoint_dir / "manifest.json").read_text())
    assert manifest["metrics"]["test_accuracy"] >= 0.95
    assert manifest["epoch"] == 10
    assert len(manifest["training"]["history"]) == 10
    assert {path.name for path in checkpoint_dir.iterdir()} == {
        "manifest.json",
        "resume.safetensors",
        "weights.safetensors",
    }


def test_the_same_seed_gives_the_same_weights(toolkit_cli: Run, tmp_path: Path) -> None:
    for out in ("a", "b"):
        done = toolkit_cli(
            "train", "lenet", "--data", "digits", "--epochs", 1, "--seed", 7, "--out", out
        )
        assert done.returncode == 0, done.stderr
        assert "train lenet 1/1" in done.stderr
    one, other = ((tmp_path / out / "weights.safetensors").read_bytes() for out in ("a", "b"))
    assert one == other


def test_export_proves_every_weight(toolkit_cli: Run, checkpoint_dir: Path) -> None:
    done = toolkit_cli("export", checkpoint_dir, "--to", "onnx", "--out", "art", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    weights = report["weights"]
    assert (weights["explained"], weights["total"], weights["passed"]) == (10, 10, True)
    assert all(
        tensor["match"] == "identical" and tensor["readers"] for tensor in weights["tensors"]
    )
    assert report["outputs"]["passed"]
    assert {case["batch"] for case in report["outputs"]["cases"]} == {1, 3, 64}


def test_export_prints_the_proof(toolkit_cli: Run, checkpoint_dir: Path) -> None:
    done = toolkit_cli("export", checkpoint_dir, "--to", "onnx", "--out", "art")
    assert done.returncode == 0, done.stderr
    assert "10 of 10 weights" in done.stdout


def test_verify_holds_every_runtime_against_torch(toolkit_cli: Run, artifact_dir: Path) -> None:
    done = toolkit_cli("verify", artifact_dir, "--runtime", RUNTIMES, "--data", "digits", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"] is True
    assert report["samples"] == 360
    for row in report["rows"]:
        assert row["passed"], row
        assert row["agreement"] == 1.0
        assert row["scores"] == pytest.approx(report["reference"]["scores"], abs=1e-5)


@pytest.mark.all_cores
def test_bench_measures_every_runtime(toolkit_cli: Run, artifact_dir: Path, tmp_path: Path) -> None:
    done = toolkit_cli(
        "bench", artifact_dir, "--runtime", f"{RUNTIMES},null", "--batch", "1,8", "--threads", 2,
        "--warmup", 5, "--runs", 100, "--json", "--out", "results",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(row["runtime"], row["batch"]) for row in report["rows"]] == [
        (runtime, batch) for batch in (1, 8) for runtime in (*RUNTIMES.split(","), "null")
    ]
    for row in report["rows"]:
        assert row["status"] == "ok", row["reason"]
        for scope in ("forward", "end_to_end"):
            figures = row["scopes"][scope]
            assert figures["min_ns"] <= figures["median_ns"]
            assert figures["ci95_ns"] is None  # one process
            assert (figures["samples"], figures["warmup"]) == (100, 5)
            assert figures["p90_ns"] is not None
            assert figures["p99_ns"] is None  # 100 samples are too few for it
        assert row["scopes"]["open"]["median_ns"] > 0
        assert row["memory"]["peak_rss_bytes"] > 2**20
        assert row["provenance"]["threads"] == 2
    for row in report["rows"]:
        if row["runtime"] == "null":
            assert row["parity"] is None
            assert row["ratio"] is None
        else:
            assert row["parity"]["passed"]
            assert row["precision"] == {"requested": "float32", "ran": "float32"}
            assert row["ratio"]["baseline"] == "torch"
    assert report["environment"]["cpu"]["available_cores"] >= 1
    assert report["environment"]["versions"]["onnxruntime"]
    stored = json.loads((tmp_path / report["result"]).read_text())
    raw = stored["rows"][0]["measurements"][0]
    assert len(raw["warmup"]) == 5
    assert sum(len(block["samples"]) for block in raw["blocks"]) == 100


def test_bench_prints_a_table(toolkit_cli: Run, artifact_dir: Path) -> None:
    done = toolkit_cli(
        "bench", artifact_dir, "--runtime", "onnxruntime", "--warmup", 1, "--runs", 12
    )
    assert done.returncode == 0, done.stderr
    assert "forward, batch 1" in done.stdout
    assert "end_to_end, batch 1" in done.stdout
    assert "result: results/" in done.stdout
    assert "\x1b[" not in done.stdout


def test_open_is_repeated_in_new_processes(toolkit_cli: Run, artifact_dir: Path) -> None:
    done = toolkit_cli(
        "bench", artifact_dir, "--runtime", "onnxruntime,openvino", "--scope", "open", "--json"
    )
    assert done.returncode == 0, done.stderr
    for row in json.loads(done.stdout)["rows"]:
        found = row["scopes"]["open"]
        assert found["samples"] == 5
        assert 0 < found["min_ns"] <= found["median_ns"] <= found["max_ns"]
        assert found["import_ns"] + found["open_ns"] < found["max_ns"]


def test_bench_takes_an_onnx_file_of_another_maker(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "foreign.onnx").write_bytes((artifact_dir / "model.onnx").read_bytes())
    done = toolkit_cli(
        "bench", "foreign.onnx", "--runtime", "onnxruntime,openvino,torch",
        "--scope", "forward", "--warmup", 1, "--runs", 12, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ort, openvino, torch = json.loads(done.stdout)["rows"]
    assert ort["parity"]["passed"]
    assert openvino["parity"]["passed"]
    assert torch["status"] == "failed"
    assert "torch takes checkpoint" in torch["reason"]


def test_a_checkpoint_can_be_measured_too(toolkit_cli: Run, checkpoint_dir: Path) -> None:
    done = toolkit_cli(
        "bench", checkpoint_dir, "--runtime", "torch", "--scope", "forward", "--runs", 12, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"][0]["parity"]["max_abs"] == 0


def test_doctor_finds_every_runtime(toolkit_cli: Run) -> None:
    done = toolkit_cli("doctor", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    found = {runtime["name"]: runtime for runtime in report["runtimes"]}
    assert list(found) == runtimes.RUNTIMES.names()
    for name, runtime in found.items():
        assert runtime["status"] == "ok" or name in runtimes.FOR_CUDA, runtime
        assert runtime["status"] == "ok" or (runtime["reason"] and runtime["hint"]), runtime
    assert report["environment"]["memory_bytes"] > 2**30
    assert "onnxruntime" in toolkit_cli("doctor").stdout

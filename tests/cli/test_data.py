"""Data that cannot be had, or cannot be meant, at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run


def test_without_a_network_the_way_out_is_told(toolkit_cli: Run, tmp_path: Path):
    done = toolkit_cli(
        "train", "lenet", "--data", "cifar10", "--out", "out",
        env={
            "TOOLKIT_DATA_MIRROR": "http://127.0.0.1:9",
            "TOOLKIT_DATA_DIR": str(tmp_path / "downloads"),
            "NO_PROXY": "127.0.0.1",
        },
    )  # fmt: skip
    assert done.returncode == 3
    told = " ".join(done.stderr.split()).replace(" ", "")
    assert f"{tmp_path}/downloads/cifar-10-binary.tar.gz" in told
    assert "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz" in told
    assert "--datadigits" in told
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_is_wrong_use(toolkit_cli: Run, tmp_path: Path):
    done = toolkit_cli("train", "lenet", "--data", "rows.csv", "--out", "out")
    assert done.returncode == 2
    assert "there is no such file" in done.stderr


def test_a_table_that_does_not_fit_the_model_is_wrong_use(toolkit_cli: Run, tmp_path: Path):
    (tmp_path / "rows.csv").write_text("a,b\n" + "1,2\n" * 9)
    done = toolkit_cli("train", "lenet", "--data", "rows.csv", "--out", "out")
    assert done.returncode == 2
    assert "3 x 32 x 32" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_model_of_a_table_is_verified_and_measured_on_it_as_it_was_trained(
    toolkit_cli: Run, tmp_path: Path
):
    """The column that is learned is not the last, and only training is told so."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 4))
    lines = [",".join(map(str, row)) for row in values]
    (tmp_path / "rows.csv").write_text("\n".join(["a,price,b,c", *lines]) + "\n")
    for args in (
        ("train", "mlp", "--data", "rows.csv", "--data-option", "target=price", "--epochs", 1,
         "--batch-size", 16, "--threads", 1, "--out", "net"),
        ("export", "net", "--to", "onnx", "--out", "net-onnx"),
    ):  # fmt: skip
        done = toolkit_cli(*args)
        assert done.returncode == 0, done.stderr
    done = toolkit_cli(
        "verify", "net-onnx", "--data", "rows.csv", "--runtime", "onnxruntime", "--json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    manifest = json.loads((tmp_path / "net" / "manifest.json").read_text())
    assert report["samples"] == 12
    assert manifest["metrics"] == pytest.approx(
        {f"test_{name}": score for name, score in report["reference"]["scores"].items()}
    )
    (row,) = report["rows"]
    assert row["agreement"] is None
    assert row["scores"] == pytest.approx(report["reference"]["scores"], abs=1e-5)
    other = toolkit_cli(
        "verify", "net-onnx", "--data", "rows.csv", "--data-option", "target=c", "--json",
        "--runtime", "onnxruntime",
    )  # fmt: skip
    assert json.loads(other.stdout)["reference"]["scores"] != report["reference"]["scores"]
    done = toolkit_cli(
        "bench", "net-onnx", "--runtime", "onnxruntime", "--warmup", 1, "--runs", 11, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["plan"]["inputs"] == "test rows of rows.csv"

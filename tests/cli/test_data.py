"""Data that cannot be had, or cannot be meant, at the command line."""

from __future__ import annotations

from pathlib import Path

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

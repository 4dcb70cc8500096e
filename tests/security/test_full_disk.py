"""A disk that is full loses no measurement, and the message names the place."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import TOOLKIT
from tests.stored_results import environment
from toolkit.benchmarking.recording import keep_rows
from toolkit.core.errors import StorageError, ToolkitError
from toolkit.core.files import new_directory, write_atomically
from toolkit.core.interrupts import Interrupts
from toolkit.core.measurement import Block, Measurement, Result, Row, Scope, Status
from toolkit.core.progress import Silent
from toolkit.core.temporary import scratch_directory
from toolkit.results import store

SIZE = 2**21


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of SIZE bytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here: that takes root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> None:
    with (disk / "filling").open("wb", buffering=0) as stream:
        try:
            while stream.write(bytes(4096)):
                pass
        except OSError:
            return


def row(samples: int) -> Row:
    times = np.full(samples, 123_456, np.int64)
    blocks = (Block(round=0, lead=times[:0], samples=times),)
    measurement = Measurement(scope=Scope.FORWARD, warmup=times[:0], settled=True, blocks=blocks)
    return Row(
        runtime="null", artifact="a.onnx", artifact_digest="sha256:0", batch=1, status=Status.OK,
        precision_requested="float32", measurements=(measurement,),
    )  # fmt: skip


def kept(disk: Path, samples: int, expected_bytes: int) -> Result:
    """Measure a row of `samples` while the disk fills up."""

    def measure_all(rows: list[Row]) -> None:
        fill(disk)
        rows.append(row(samples))

    return keep_rows(
        measure_all, plan={"options": {"threads": 1}, "cpus": None}, environment=environment(),
        warnings=lambda rows: [], interrupts=Interrupts(),
        out=disk / "results", expected_bytes=expected_bytes, progress=Silent(),
    )  # fmt: skip


def test_a_result_has_its_space_from_the_start(disk: Path) -> None:
    result = kept(disk, samples=10_000, expected_bytes=500_000)
    (path,) = store.paths(disk / "results")
    assert (store.load(path).rows[0].measurements[0].samples == 123_456).all()
    assert path.stem == result.id
    assert 70_000 < path.stat().st_blocks * 512 < 200_000  # what it did not need is given back


def test_a_result_that_outgrows_its_space_is_stored_elsewhere(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(StorageError, match="No space left") as raised:
        kept(disk, samples=200_000, expected_bytes=300_000)
    error = raised.value
    assert error.path is not None
    assert str(error.path) in error.problem
    assert str(disk / "results") in error.problem
    assert store.load(error.path).id == error.result.id
    assert list((disk / "results").iterdir()) == []


def test_with_both_full_the_result_is_still_given(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    with pytest.raises(StorageError, match="The result is not stored") as raised:
        kept(disk, samples=200_000, expected_bytes=300_000)
    assert len(raised.value.result.rows[0].measurements[0].samples) == 200_000


def test_without_room_nothing_is_measured(disk: Path) -> None:
    fill(disk)
    with pytest.raises(ToolkitError, match=r"Results cannot be stored in .*No space left"):
        kept(disk, samples=1, expected_bytes=300_000)


def test_half_of_a_small_disk_is_left_free(disk: Path) -> None:
    with store.reserve(disk, "20260101T000000Z-0", 10 * SIZE):
        found = os.statvfs(disk)
        assert found.f_bavail * found.f_frsize >= 0.45 * SIZE


def write_file(disk: Path, elsewhere: Path) -> None:
    write_atomically(disk / "weights", bytes(2 * SIZE))


def write_directory(disk: Path, elsewhere: Path) -> None:
    with new_directory(disk / "made") as partial, scratch_directory():
        (partial / "weights").write_bytes(bytes(2 * SIZE))


def write_scratch(disk: Path, elsewhere: Path) -> None:
    with new_directory(elsewhere / "made"), scratch_directory() as scratch:
        (scratch / "weights").write_bytes(bytes(2 * SIZE))


@pytest.mark.parametrize("write", [write_file, write_directory, write_scratch])
def test_the_message_names_the_place(
    write: Callable[[Path, Path], None],
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(disk if write is write_scratch else tmp_path))
    with pytest.raises(ToolkitError, match="No space left") as raised:
        write(disk, tmp_path)
    assert str(disk) in raised.value.problem
    assert list(disk.iterdir()) == []


def test_bench_prints_its_table(disk: Path, tmp_path: Path) -> None:
    """The disk fills up while it measures, and what it reserved is too little."""
    from tests.security.test_damaged_results import save_model

    model = save_model(tmp_path / "model.onnx")
    (tmp_path / "tmp").mkdir()
    command = [
        TOOLKIT, "bench", model, "--runtime", "null", "--scope", "forward", "--warmup", "1",
        "--runs", "400000", "--out", "disk/results", "--json",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    )  # fmt: skip
    while not any(path.stat().st_size for path in disk.glob("results/.*")):  # reserved
        assert process.poll() is None
    fill(disk)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 3
    told = json.loads(out)
    assert told["rows"][0]["scopes"]["forward"]["median_ns"] > 0
    (path,) = (tmp_path / "tmp").glob("toolkit-results-*/*.json")
    assert told["result"] == str(path)
    assert f"The result is in {path} instead" in err
    assert store.load(path).id == path.stem


@pytest.mark.parametrize("command", [("models",), ("models", "--json")])
@pytest.mark.parametrize("unbuffered", ["1", ""])
def test_a_full_standard_output_is_named_once(command: tuple[str, ...], unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [TOOLKIT, *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr.count("No space left on device: 'standard output'") == 1
    assert "Traceback" not in done.stderr

"""The binary archives of CIFAR-10 and CIFAR-100, from a server on this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data_server import CIFAR_ROWS, Server, cifar_files, tar_gz
from toolkit.core.errors import IntegrityError
from toolkit.data.base import DataSet, Request, Splits
from toolkit.data.cifar import CIFAR10_ARCHIVE, Cifar10, Cifar100

FILES = {10: cifar_files(10), 100: cifar_files(100)}
DATA_SETS = {10: Cifar10, 100: Cifar100}


def data_set(server: Server, classes: int, files: dict[str, bytes] | None = None) -> DataSet:
    archive = server.publish(f"cifar-{classes}.tar.gz", tar_gz(files or FILES[classes]))
    return DATA_SETS[classes](archive)


def raw(files: dict[str, bytes], part: str, labels: int) -> np.ndarray:
    content = b"".join(content for name, content in sorted(files.items()) if part in name)
    return np.frombuffer(content, np.uint8).reshape(-1, labels + 3072)


def load(server: Server, classes: int, place: Path) -> Splits:
    return data_set(server, classes).load(Request(directory=place))


@pytest.mark.parametrize(("classes", "batches"), [(10, 5), (100, 1)])
def test_every_row_is_its_record(server: Server, tmp_path: Path, classes: int, batches: int):
    splits = load(server, classes, tmp_path)
    assert (len(splits.train), len(splits.test)) == (batches * CIFAR_ROWS, CIFAR_ROWS)
    labels = 1 if classes == 10 else 2
    for split, part in ((splits.train, "data_batch" if classes == 10 else "train"),
                        (splits.test, "test")):  # fmt: skip
        records = raw(FILES[classes], part, labels)
        assert np.array_equal(split.targets, records[:, labels - 1])
        images = records[:, labels:].reshape(-1, 3, 32, 32)
        np.testing.assert_allclose(split.inputs, (images / 255 - 0.5) / 0.5, atol=1e-6)


def test_the_fine_class_is_the_target_not_the_coarse_one(server: Server, tmp_path: Path):
    coarse = raw(FILES[100], "train", 2)[:, 0]
    assert not np.array_equal(load(server, 100, tmp_path).train.targets, coarse)


def test_red_is_first(server: Server, tmp_path: Path):
    record = bytes([3]) + bytes([255]) * 1024 + bytes(2048)
    files = dict.fromkeys(FILES[10], record)
    splits = data_set(server, 10, files).load(Request(directory=tmp_path))
    assert splits.test.inputs[0, :, 7, 9].tolist() == [1.0, -1.0, -1.0]
    assert splits.preprocessing["order"] == "rgb"


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\x01" * 3000, "3000 bytes"), (b"", "0 bytes"), (b"\x0a" * 3073, "class 10")],
)
def test_a_file_that_is_no_records_is_refused(
    server: Server, tmp_path: Path, content: bytes, said: str
):
    files = {**FILES[10], "cifar-10-batches-bin/data_batch_3.bin": content}
    with pytest.raises(IntegrityError, match=said) as caught:
        data_set(server, 10, files).load(Request(directory=tmp_path))
    assert "data_batch_3.bin" in caught.value.problem


def test_a_missing_batch_is_named(server: Server, tmp_path: Path):
    files = {name: content for name, content in FILES[10].items() if "batch_4" not in name}
    with pytest.raises(IntegrityError, match=r"data_batch_4\.bin"):
        data_set(server, 10, files).load(Request(directory=tmp_path))


def test_a_pickle_in_the_archive_is_never_opened(server: Server, tmp_path: Path):
    """The archive for Python has pickles under other names: it is not this one."""
    files = {"cifar-10-batches-py/data_batch_1": b"\x80\x04."}
    with pytest.raises(IntegrityError, match=r"data_batch_1\.bin"):
        data_set(server, 10, files).load(Request(directory=tmp_path))


def test_an_entry_that_leads_out_is_refused(server: Server, tmp_path: Path):
    files = {**FILES[10], "../../evil": b"out"}
    with pytest.raises(IntegrityError, match="leads out"):
        data_set(server, 10, files).load(Request(directory=tmp_path / "a" / "b"))
    assert not (tmp_path / "evil").exists()


def test_the_second_load_needs_no_server(server: Server, tmp_path: Path):
    source = data_set(server, 10)
    first = source.load(Request(directory=tmp_path))
    server.files.clear()
    again = source.load(Request(directory=tmp_path))
    assert first.train.inputs.tobytes() == again.train.inputs.tobytes()
    assert len(server.asked) == 1


CHILD = """
import sys
from pathlib import Path
from toolkit.data.base import Request
from toolkit.data.cifar import Cifar10
from toolkit.data.downloads import RemoteFile
name, url, digest, place = sys.argv[1:]
sys.stdin.readline()
splits = Cifar10(RemoteFile(name=name, url=url, digest=digest)).load(Request(directory=Path(place)))
print(len(splits.train), float(splits.train.inputs.sum(dtype="float64")))
"""


def test_two_processes_at_once_get_the_same_rows(server: Server, tmp_path: Path):
    archive = server.publish("cifar.tar.gz", tar_gz(FILES[10]))
    command = [sys.executable, "-c", CHILD, archive.name, archive.url, archive.digest, tmp_path]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    expected = Cifar10(archive).load(Request(directory=tmp_path)).train.inputs
    assert said == [f"60 {float(expected.sum(dtype='float64'))}\n"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["cifar.tar.gz"]


def test_what_is_asked_for_unless_told_is_the_published_archive():
    assert CIFAR10_ARCHIVE.url == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"

"""Digests, atomic files, new directories: whole or not at all."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.errors import IntegrityError, OutputExistsError, ToolkitError
from toolkit.core.files import (
    digest_bytes,
    digest_file,
    new_directory,
    record_files,
    refuse_existing,
    verify_files,
    write_atomically,
)


def everything_below(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    directory = tmp_path / "recorded"
    (directory / "sub").mkdir(parents=True)
    (directory / "a.bin").write_bytes(bytes(range(64)))
    (directory / "sub" / "b.bin").write_bytes(b"b")
    return directory


@given(st.binary(max_size=200))
def test_digest_is_sha256(data: bytes):
    assert digest_bytes(data) == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert digest_bytes(memoryview(data)) == digest_bytes(data)


def test_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"abc")
    assert digest_file(tmp_path / "f") == digest_bytes(b"abc")


def test_records_name_every_file_relative_to_the_directory(recorded: Path):
    records = record_files(recorded)
    assert list(records) == ["a.bin", "sub/b.bin"]
    assert [record.size_bytes for record in records.values()] == [64, 1]
    verify_files(recorded, records)


@pytest.mark.parametrize("bit", [0, 255, 511])
def test_one_flipped_bit_is_found_and_the_file_named(recorded: Path, bit: int):
    records = record_files(recorded)
    data = bytearray((recorded / "a.bin").read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    (recorded / "a.bin").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"a\.bin has digest"):
        verify_files(recorded, records)


def test_missing_file_is_named(recorded: Path):
    records = record_files(recorded)
    (recorded / "sub" / "b.bin").unlink()
    with pytest.raises(IntegrityError, match=r"sub/b\.bin is missing"):
        verify_files(recorded, records)


def test_directory_in_the_place_of_a_file_is_missing(recorded: Path):
    records = record_files(recorded)
    (recorded / "a.bin").unlink()
    (recorded / "a.bin").mkdir()
    with pytest.raises(IntegrityError, match=r"a\.bin is missing"):
        verify_files(recorded, records)


def test_written_file_replaces_the_old_and_leaves_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "new" / "f"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert everything_below(path.parent) == ["f"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_failed_write_keeps_what_was_there_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "f").mkdir()
    with pytest.raises(ToolkitError, match="Could not write"):
        write_atomically(tmp_path / "f", b"data")
    assert everything_below(tmp_path) == ["f"]


def test_write_below_a_file_is_a_toolkit_error(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(ToolkitError, match=r"Could not write .*f/g") as caught:
        write_atomically(tmp_path / "f" / "g", b"data")
    assert isinstance(caught.value.__cause__, OSError)


def test_new_directory_appears_when_the_block_is_done(tmp_path: Path):
    target = tmp_path / "parent" / "out"
    with new_directory(target) as partial:
        (partial / "sub").mkdir()
        (partial / "sub" / "f").write_bytes(b"data")
        assert not target.exists()
    assert everything_below(target) == ["sub", "sub/f"]
    assert everything_below(target.parent) == ["out", "out/sub", "out/sub/f"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_new_directory_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]):
    def fail() -> None:
        with new_directory(tmp_path / "out") as partial:
            (partial / "f").write_bytes(b"data")
            raise error

    with pytest.raises(error):
        fail()
    assert everything_below(tmp_path) == []


def test_new_directory_takes_an_empty_one(tmp_path: Path):
    (tmp_path / "out").mkdir()
    with new_directory(tmp_path / "out") as partial:
        (partial / "f").touch()
    assert everything_below(tmp_path) == ["out", "out/f"]


def make_file(path: Path) -> None:
    path.write_bytes(b"mine")


def make_directory(path: Path) -> None:
    path.mkdir()
    (path / "mine").touch()


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [make_file, make_directory, make_dangling_link])
def test_existing_target_is_refused_and_kept(tmp_path: Path, make):
    make(tmp_path / "out")
    before = everything_below(tmp_path)
    with pytest.raises(OutputExistsError, match="--out"), new_directory(tmp_path / "out"):
        pytest.fail("the block ran")
    with pytest.raises(OutputExistsError):
        refuse_existing(tmp_path / "out")
    assert everything_below(tmp_path) == before


def test_target_taken_during_the_block_is_kept(tmp_path: Path):
    target = tmp_path / "out"

    def race() -> None:
        with new_directory(target) as partial:
            (partial / "ours").touch()
            make_directory(target)

    with pytest.raises(OutputExistsError):
        race()
    assert everything_below(tmp_path) == ["out", "out/mine"]


@pytest.mark.parametrize("below", ["out", "a/out"])
def test_new_directory_below_a_file_is_a_toolkit_error(tmp_path: Path, below: str):
    (tmp_path / "f").touch()
    with (
        pytest.raises(ToolkitError, match="Could not create"),
        new_directory(tmp_path / "f" / below),
    ):
        pytest.fail("the block ran")


def test_name_too_long_is_a_toolkit_error(tmp_path: Path):
    with pytest.raises(ToolkitError), new_directory(tmp_path / ("x" * 300)):
        pytest.fail("the block ran")


def test_parents_made_for_the_target_go_with_it(tmp_path: Path):
    def fail() -> None:
        with new_directory(tmp_path / "parent" / "out"):
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert everything_below(tmp_path) == []

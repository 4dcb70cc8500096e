"""Archives that are what they say are read; those that lead elsewhere are refused whole."""

from __future__ import annotations

import contextlib
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data_server import tar_gz, zipped
from toolkit.core.errors import IntegrityError, ToolkitError
from toolkit.data.archives import member, members

FILES = {"folder/a.bin": b"first", "folder/b.bin": b"second", "c.txt": b""}
MAKERS = {".tar.gz": tar_gz, ".tgz": tar_gz, ".zip": zipped}


def written(place: Path, suffix: str, content: bytes) -> Path:
    path = place / f"rows{suffix}"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", MAKERS)
def test_wanted_files_are_read_and_nothing_is_written(suffix: str, tmp_path: Path):
    path = written(tmp_path, suffix, MAKERS[suffix](FILES))
    assert members(path, lambda name: name.endswith(".bin")) == {
        "folder/a.bin": b"first",
        "folder/b.bin": b"second",
    }
    assert member(path, "c.txt") == b""
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
@pytest.mark.parametrize(
    "name",
    ["../out.bin", "folder/../../out.bin", "/etc/out.bin", "..\\out.bin", "C:\\out.bin", ".."],
)
def test_an_entry_that_leads_out_refuses_the_archive(suffix: str, name: str, tmp_path: Path):
    inside = tmp_path / "inside"
    inside.mkdir()
    path = written(inside, suffix, MAKERS[suffix]({**FILES, name: b"out"}))
    with pytest.raises(IntegrityError, match="leads out of it"):
        member(path, "c.txt")
    assert [found for found in tmp_path.rglob("*") if found != path] == [inside]


def linked_tar(kind: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        entry = tarfile.TarInfo("folder/a.bin")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    return stream.getvalue()


def linked_zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        entry = zipfile.ZipInfo("folder/a.bin")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("suffix", "make"),
    [
        (".tar.gz", lambda: linked_tar(tarfile.SYMTYPE)),
        (".tar.gz", lambda: linked_tar(tarfile.LNKTYPE)),
        (".tar.gz", lambda: linked_tar(tarfile.CHRTYPE)),
        (".tar.gz", lambda: linked_tar(tarfile.FIFOTYPE)),
        (".zip", linked_zip),
    ],
    ids=["symbolic", "hard", "device", "pipe", "zip"],
)
def test_a_link_or_a_device_refuses_the_archive(
    suffix: str, make: Callable[[], bytes], tmp_path: Path
):
    path = written(tmp_path, suffix, make())
    with pytest.raises(IntegrityError, match="link or a device"):
        member(path, "folder/a.bin")


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_a_file_that_is_not_there_is_named(suffix: str, tmp_path: Path):
    path = written(tmp_path, suffix, MAKERS[suffix](FILES))
    with pytest.raises(IntegrityError, match=r"no folder/d\.bin"):
        member(path, "folder/d.bin")


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_no_archive_at_all_is_a_toolkit_error(suffix: str, tmp_path: Path):
    with pytest.raises(ToolkitError):
        member(tmp_path / f"rows{suffix}", "c.txt")


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_damage_is_found_or_does_no_harm(
    suffix: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    """Any cut and any changed byte: the content, or an IntegrityError, and nothing else."""
    whole = MAKERS[suffix]({"a.bin": bytes(range(256)) * 8})
    content = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    if content:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(0, 255))
    path = written(tmp_path_factory.mktemp("damage"), suffix, bytes(content))
    with contextlib.suppress(IntegrityError):
        member(path, "a.bin")

"""Files of arrays (.npz) that are damaged or hostile."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.core.errors import SourceError
from toolkit.data import load_splits
from toolkit.data.arrays import load_arrays


class Payload:
    """An object whose pickle creates a directory when it is loaded."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.place),)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def header(descr: str, shape: tuple[int, ...], order: bool | None = False) -> str:
    return f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}"


def with_header(text: str, body: bytes = bytes(16)) -> bytes:
    encoded = text.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(encoded)) + encoded + body


def written(path: Path, entries: dict[str, bytes], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


ARRAYS = {
    "far larger than its bytes": header("<f4", (1 << 40,)),
    "larger than memory": header("<f4", (1 << 62,)),
    "negative": header("<f4", (-4,)),
    "objects": header("|O", (2,)),
    "no size": header("|V0", (10**12,)),
    "smaller than its bytes": header("<f4", (2,)),
    "code": "{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': (2,), }",
    "deep": "(" * 5000,
    "no dictionary": "[]",
}


@pytest.mark.parametrize("attack", ARRAYS)
def test_hostile_arrays_are_refused(tmp_path: Path, attack: str) -> None:
    path = written(tmp_path / "rows.npz", {"x.npy": with_header(ARRAYS[attack])})
    with pytest.raises(SourceError, match="could not be read"):
        load_arrays(path)


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    path, ran = tmp_path / "rows.npz", tmp_path / "ran"
    np.savez(path, x=np.array([Payload(ran)], dtype=object))
    with pytest.raises(SourceError, match="could not be read"):
        load_arrays(path)
    assert not ran.exists()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_corrupt_archive_is_refused(tmp_path: Path, compression: int) -> None:
    content = npy(np.arange(1000.0))
    path = written(tmp_path / "rows.npz", {"x.npy": content}, compression=compression)
    damaged = bytearray(path.read_bytes())
    damaged[200:220] = b"\xff" * 20
    path.write_bytes(damaged)
    with pytest.raises(SourceError, match="could not be read"):
        load_arrays(path)


def test_an_archive_that_unpacks_to_more_than_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "rows.npz", x=np.zeros(1_000_000))
    assert (tmp_path / "rows.npz").stat().st_size < 100_000
    available = psutil.virtual_memory()._replace(available=10_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)
    with pytest.raises(SourceError, match="GB of memory"):
        load_arrays(tmp_path / "rows.npz")


@pytest.mark.parametrize("content", [b"", npy(np.zeros((8, 2))), b"PK", b"text", bytes(500)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.npz"
    path.write_bytes(content)
    for read in (load_arrays, lambda path: load_splits(str(path))):
        with pytest.raises(SourceError, match="could not be read"):
            read(path)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nosuch.npz", tmp_path):
        with pytest.raises(SourceError, match="could not be read"):
            load_arrays(path)


def test_what_numpy_writes_is_loaded(tmp_path: Path) -> None:
    arrays = {
        "x": np.arange(6.0).reshape(2, 3, order="F"), "scalar": np.float32(2),
        "empty": np.zeros((0, 3)), "text": np.array(["a", "bc"]), "flags": np.ones(3, bool),
        "flipped": np.arange(4)[::-1],
        "dates": np.array(["2020-01-01"], "datetime64[D]"), "big": np.arange(3, dtype=">i4"),
    }  # fmt: skip
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "rows.npz", **arrays)
        found = load_arrays(tmp_path / "rows.npz")
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    place=st.integers(0, 2000),
    patch=st.binary(min_size=1, max_size=6),
    cut=st.integers(0, 40),
    compressed=st.booleans(),
)
def test_any_damage_is_read_or_refused(
    tmp_path: Path, place: int, patch: bytes, cut: int, compressed: bool
) -> None:
    path = tmp_path / "rows.npz"
    (np.savez_compressed if compressed else np.savez)(path, x=np.arange(8.0), y=np.zeros((2, 3)))
    content = bytearray(path.read_bytes())
    place %= len(content)
    content[place : place + len(patch)] = patch
    path.write_bytes(content[: len(content) - cut])
    try:
        found = load_arrays(path)
    except SourceError:
        return
    assert all(isinstance(array, np.ndarray) for array in found.values())


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    descr=st.sampled_from(["<f4", ">i8", "|O", "|V0", "<U3", "|b1", "<c16", "x", "f4,O", "<M8[x]"])
    | st.text(max_size=8),
    shape=st.lists(st.integers(-2, 5) | st.integers(0, 2**70), max_size=3),
    order=st.booleans() | st.none(),
    body=st.binary(max_size=80),
)
def test_any_header_of_an_array_is_read_or_refused(
    tmp_path: Path, descr: str, shape: list[int], order: bool | None, body: bytes
) -> None:
    text = header(descr, tuple(shape), order)
    content = with_header(text.encode("latin-1", "replace").decode("latin-1"), body)
    path = written(tmp_path / "rows.npz", {"x.npy": content})
    try:
        found = load_arrays(path)
    except SourceError:
        return
    assert found["x"].nbytes <= len(body)

"""Weights in safetensors with hostile headers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporters.checkpoint_file import CheckpointTensors
from models import FAMILIES, builder
from models.torch.program import module_of
from toolkit.core.artifact import CHECKPOINT_SCHEMA, MANIFEST, WEIGHTS, Checkpoint
from toolkit.core.documents import read_document, seal, write_document
from toolkit.core.errors import SourceError
from toolkit.core.files import digest_file
from toolkit.core.tensors import load_tensors


def written(path: Path, header: object, body: bytes = b"", size: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if size is None else size) + text + body)
    return path


def tensor(shape: list[int], dtype: str = "F32", offsets: tuple[int, int] = (0, 8)) -> Any:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


HEADERS: dict[str, tuple[object, int | None]] = {
    "huge header": ({}, 2**63),
    "header longer than the file": ({}, 10**7),
    "overlapping offsets": ({"a": tensor([2]), "b": tensor([2], offsets=(4, 12))}, None),
    "unknown dtype": ({"a": tensor([2], "F99")}, None),
    "dtype that NumPy does not have": ({"a": tensor([4], "BF16")}, None),
    "packed dtype": ({"a": tensor([16], "F4")}, None),
    "shape that overflows": ({"a": tensor([2**62, 2**62])}, None),
    "empty shape that overflows": ({"a": tensor([0, 2**62], offsets=(0, 0))}, None),
    "empty shape beyond 64 bits": ({"a": tensor([0, 2**63], offsets=(0, 0))}, None),
    "too many axes": ({"a": tensor([1] * 65 + [2])}, None),
    "list": ([], None),
    "no text": (b"\xff\xfe", None),
    "deep": (b"[" * 100_000, None),
}


@pytest.mark.parametrize("attack", HEADERS)
def test_hostile_headers_are_refused(tmp_path: Path, attack: str) -> None:
    header, size = HEADERS[attack]
    path = written(tmp_path / "weights.safetensors", header, bytes(8), size)
    with pytest.raises(SourceError, match="could not be read as safetensors"):
        CheckpointTensors().stored_tensors(path)


def checkpoint(directory: Path) -> Checkpoint:
    """A checkpoint of the perceptron."""
    spec = FAMILIES.create("mlp").spec("torch")
    maker = builder(spec, "torch")
    return Checkpoint.save(
        directory, spec=spec, weights=maker.weights(maker.build(spec)), seed=0, epoch=0,
        metrics={}, training={},
    )  # fmt: skip


def resealed(directory: Path, name: str = WEIGHTS) -> Checkpoint:
    """The checkpoint with a manifest that has the digest of its weights, under another name."""
    path, weights = directory / MANIFEST, directory / WEIGHTS
    document = read_document(path, CHECKPOINT_SCHEMA)
    body = {k: v for k, v in document.items() if k not in ("schema", "digest", "producer")}
    record = {"digest": digest_file(weights), "size_bytes": weights.stat().st_size}
    write_document(path, seal(CHECKPOINT_SCHEMA, {**body, "files": {name: record}}))
    return Checkpoint.load(directory)


def test_a_checkpoint_with_hostile_weights_is_refused(tmp_path: Path) -> None:
    """Its manifest has their digest, as an attacker would write it."""
    checkpoint(tmp_path)
    written(tmp_path / WEIGHTS, {"a": tensor([4], "BF16")}, bytes(8))
    hostile = resealed(tmp_path)
    with pytest.raises(SourceError, match="could not be read as safetensors"):
        module_of(hostile.artifact())
    with pytest.raises(SourceError, match="could not be read as safetensors"):
        hostile.weights()


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/../../b", "x\0y"])
def test_a_manifest_whose_files_are_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    checkpoint(tmp_path)
    with pytest.raises(SourceError, match="a file name that is relative"):
        resealed(tmp_path, name)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
dtypes = st.sampled_from(["F32", "F64", "F16", "BF16", "I8", "BOOL", "C64", "F8_E4M3", "F4", "U1"])
extents = st.integers(0, 4) | st.integers(0, 2**64)
tensors = st.fixed_dictionaries(
    {
        "dtype": dtypes,
        "shape": st.lists(extents, max_size=4),
        "data_offsets": st.lists(st.integers(0, 40), min_size=2, max_size=2),
    }
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    header=st.dictionaries(st.text(max_size=3), tensors | values, max_size=3) | values,
    body=st.binary(max_size=40),
    size=st.none() | st.integers(0, 2**64 - 1),
)
def test_any_header_is_read_or_refused(
    tmp_path: Path, header: object, body: bytes, size: int | None
) -> None:
    path = written(tmp_path / "weights.safetensors", header, body, size)
    try:
        found = load_tensors(path)
    except SourceError:
        return
    assert sum(array.nbytes for array in found.values()) <= len(body)

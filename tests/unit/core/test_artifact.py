"""Checkpoints and artifacts on disk: what is read is what was written, or an error says so."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toolkit.core.artifact import MANIFEST, WEIGHTS, Artifact, Checkpoint, Format, parents_of
from toolkit.core.codec import decode, encode
from toolkit.core.documents import read_document, seal, write_document
from toolkit.core.errors import IntegrityError, SourceError, ToolkitError
from toolkit.core.specs import ModelSpec, Signature, TensorSpec

SPEC = ModelSpec(
    name="tiny",
    family="tiny",
    framework="torch",
    signature=Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 2), layout="NC"),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 3)),),
    ),
    hyperparameters={"classes": 3},
)
ARRAYS = {"b": np.arange(3, dtype=np.float32), "a": np.ones((2, 3), np.float32)}

arrays = hnp.arrays(
    st.sampled_from(["float32", "float16", "float64", "int8", "int64", "uint8", "bool"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)


def save(directory: Path, **changes: Any) -> Checkpoint:
    directory.mkdir(parents=True)
    given = {"spec": SPEC, "weights": ARRAYS, "seed": 7, "epoch": 2}
    rest = {"metrics": {"accuracy": 0.5}, "training": {"recipe": {"epochs": 2}}}
    return Checkpoint.save(directory, **{**given, **rest, **changes})


def save_artifact(directory: Path, parents: tuple = ()) -> Artifact:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.onnx").write_bytes(b"model")
    return Artifact.save(
        directory,
        model=SPEC,
        format=Format.ONNX,
        precision="float32",
        signature=SPEC.signature,
        entry="model.onnx",
        parents=parents,
        options={"opset": 18},
    )


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_checkpoint_loads_as_saved(tmp_path: Path):
    saved = save(tmp_path / "c")
    loaded = Checkpoint.load(tmp_path / "c")
    assert loaded == saved
    assert (loaded.spec, loaded.seed, loaded.epoch) == (SPEC, 7, 2)
    assert loaded.metrics == {"accuracy": 0.5}
    assert loaded.training == {"recipe": {"epochs": 2}}
    assert list(loaded.files) == [WEIGHTS]
    assert list(loaded.weights()) == ["a", "b"]


@given(st.dictionaries(st.text("abc.", min_size=1, max_size=6), arrays, max_size=4))
def test_weights_keep_every_bit(tmp_path_factory: pytest.TempPathFactory, weights: dict):
    directory = tmp_path_factory.mktemp("checkpoint")
    back = save(directory / "c", weights=weights).weights()
    assert back.keys() == weights.keys()
    for name, array in weights.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3).T, np.arange(6.0, dtype=">f8")[::2]]
)
def test_strides_and_byte_order_do_not_matter(tmp_path: Path, array: np.ndarray):
    back = save(tmp_path / "c", weights={"w": array}).weights()["w"]
    assert np.array_equal(back, array)
    assert back.dtype == np.float64


def test_same_content_has_the_same_digest_anywhere(tmp_path: Path):
    first = save(tmp_path / "one")
    again = save(tmp_path / "two", weights=dict(reversed(ARRAYS.items())))
    other = save(tmp_path / "three", weights={**ARRAYS, "b": ARRAYS["b"] + 1})
    assert first.digest == again.digest
    assert first.digest != other.digest


def test_altered_weights_are_found_before_they_are_used(tmp_path: Path):
    checkpoint = save(tmp_path / "c")
    flip_a_bit(tmp_path / "c" / WEIGHTS)
    for use in (checkpoint.verify, checkpoint.weights, checkpoint.artifact().verify):
        with pytest.raises(IntegrityError, match=WEIGHTS):
            use()


def test_altered_manifest_is_found_on_loading(tmp_path: Path):
    save(tmp_path / "c")
    manifest = tmp_path / "c" / MANIFEST
    manifest.write_text(manifest.read_text().replace('"seed": 7', '"seed": 8'))
    with pytest.raises(IntegrityError, match=MANIFEST):
        Checkpoint.load(tmp_path / "c")


def test_a_checkpoint_is_no_artifact_and_the_reverse(tmp_path: Path):
    save(tmp_path / "c")
    save_artifact(tmp_path / "a")
    with pytest.raises(SourceError, match=r"toolkit\.checkpoint/2"):
        Artifact.load(tmp_path / "c")
    with pytest.raises(SourceError, match=r"toolkit\.artifact/2"):
        Checkpoint.load(tmp_path / "a")


def test_artifact_loads_as_saved_and_crosses_as_json(tmp_path: Path):
    saved = save_artifact(tmp_path / "a")
    assert Artifact.load(tmp_path / "a") == saved
    assert decode(json.loads(json.dumps(encode(saved))), Artifact, "a test") == saved
    assert saved.path.read_bytes() == b"model"
    saved.verify()


def test_saving_again_records_what_lies_there_now(tmp_path: Path):
    first = save_artifact(tmp_path / "a")
    (tmp_path / "a" / "parity.json").write_text("{}")
    again = save_artifact(tmp_path / "a")
    assert sorted(again.files) == ["model.onnx", "parity.json"]
    assert again.digest != first.digest
    again.verify()


def test_checkpoint_is_an_artifact_for_its_own_framework(tmp_path: Path):
    checkpoint = save(tmp_path / "c")
    artifact = checkpoint.artifact()
    assert (artifact.format, artifact.digest) == (Format.CHECKPOINT, checkpoint.digest)
    assert artifact.path == tmp_path / "c" / WEIGHTS
    artifact.verify()


def test_parent_is_found_after_both_moved(tmp_path: Path):
    checkpoint = save(tmp_path / "runs" / "c")
    (parent,) = parents_of(tmp_path / "runs" / "a", checkpoint.artifact())
    save_artifact(tmp_path / "runs" / "a", parents=(parent,))
    (tmp_path / "runs").rename(tmp_path / "moved")
    found = Artifact.load(tmp_path / "moved" / "a").parent_checkpoint()
    assert (found.digest, found.directory) == (checkpoint.digest, tmp_path / "moved" / "c")


def test_parent_that_is_gone_replaced_or_was_never_there_is_an_error(tmp_path: Path):
    (parent,) = parents_of(tmp_path / "a", save(tmp_path / "c").artifact())
    artifact = save_artifact(tmp_path / "a", parents=(parent,))
    (tmp_path / "c").rename(tmp_path / "gone")
    with pytest.raises(SourceError, match="Could not read"):
        artifact.parent_checkpoint()
    save(tmp_path / "c", seed=8)
    with pytest.raises(IntegrityError, match="was made from"):
        artifact.parent_checkpoint()
    with pytest.raises(SourceError, match="not made from a checkpoint"):
        save_artifact(tmp_path / "b").parent_checkpoint()


def test_diverged_training_run_is_saved_or_refused(tmp_path: Path):
    with contextlib.suppress(ToolkitError):
        save(tmp_path / "c", metrics={"loss": float("nan")})


def test_format_of_a_later_version_is_a_toolkit_error(tmp_path: Path):
    manifest = save_artifact(tmp_path / "a").directory / "manifest.json"
    document = read_document(manifest, "toolkit.artifact/2")
    body = {k: v for k, v in document.items() if k not in ("schema", "producer", "digest")}
    write_document(manifest, seal("toolkit.artifact/2", {**body, "format": "of-tomorrow"}))
    with pytest.raises(SourceError, match="of-tomorrow"):
        Artifact.load(manifest.parent)


def test_artifact_without_its_entry_does_not_verify(tmp_path: Path):
    artifact = save_artifact(tmp_path / "a")
    with pytest.raises(ToolkitError):
        replace(artifact, entry="nowhere.onnx").verify()


def test_a_checkpoint_without_a_record_of_its_weights_is_refused(checkpoint_dir: Path) -> None:

    checkpoint = Checkpoint.load(checkpoint_dir)
    bare = replace(checkpoint, files={})
    with pytest.raises(IntegrityError, match=r"no record of weights\.safetensors"):
        bare.weights()

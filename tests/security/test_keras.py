"""Keras files that try to run code, or to read other files."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from models.keras.program import load_keras
from toolkit.core.errors import SourceError

# Keras, on its own way to NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Entries = dict[str, bytes]


def saved(model: keras.Model, path: Path) -> Entries:
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Entries:
    inputs = keras.Input((4,), name="x")
    outputs = keras.layers.Dense(3, activation="relu", name="dense")(inputs)
    return saved(keras.Model(inputs, outputs), tmp_path_factory.mktemp("keras") / "good.keras")


def written(path: Path, entries: Entries) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def with_config(good: Entries, change: Callable[[Any], object]) -> Entries:
    config = json.loads(good["config.json"])
    change(config)
    return {**good, "config.json": json.dumps(config).encode()}


def with_weights(good: Entries, change: Callable[[h5py.File], object]) -> Entries:
    stream = io.BytesIO(good["model.weights.h5"])
    with h5py.File(stream, "r+") as file:
        change(file)
    return {**good, "model.weights.h5": stream.getvalue()}


def dense(config: Any) -> Any:
    return config["config"]["layers"][1]


CONFIGS: dict[str, Callable[[Any], object]] = {
    "download": lambda c: dense(c).update(module="keras.utils", class_name="get_file"),
    "data set": lambda c: dense(c)["config"].update(
        activation={
            "module": "keras.datasets.mnist", "class_name": "function", "config": "load_data",
            "registered_name": "load_data",
        }
    ),
    "saving": lambda c: dense(c)["config"].update(
        activation={
            "module": "keras.saving", "class_name": "function", "config": "load_weights",
            "registered_name": "load_weights",
        }
    ),
    "function of a module": lambda c: dense(c)["config"].update(
        activation={
            "module": "builtins", "class_name": "function", "config": "deserialize",
            "registered_name": "function",
        }
    ),
    "another package": lambda c: dense(c).update(module="os", class_name="system"),
    "registered name": lambda c: dense(c).update(registered_name="package>Dense"),
    "lambda": lambda c: dense(c)["config"].update(
        activation={"class_name": "__lambda__", "config": {"value": "4wAAAA=="}}
    ),
    "lambda layer": lambda c: dense(c).update(class_name="Lambda"),
    "lambda layer by its module": lambda c: dense(c).update(
        module="keras.src.layers.core.lambda_layer", class_name="Lambda"
    ),
    "lambda layer of the older format": lambda c: (
        dense(c).pop("module"), dense(c).update(class_name="Lambda")
    ),
    "SavedModel": lambda c: dense(c).update(
        class_name="TFSMLayer", config={"filepath": "/tmp/model"}
    ),
    "module of torch": lambda c: dense(c).update(class_name="TorchModuleWrapper"),
    "type": lambda c: dense(c)["config"].update(
        activation={
            "class_name": "__typespec__", "module": "tensorflow", "spec_name": "TensorSpec",
            "registered_name": None, "config": [],
        }
    ),
    "vocabulary": lambda c: dense(c).update(
        class_name="StringLookup", registered_name=None, config={"vocabulary": "/etc/passwd"}
    ),
    "vocabulary of text": lambda c: dense(c).update(
        class_name="TextVectorization", registered_name=None, config={"vocabulary": "/etc/passwd"}
    ),
    "name that leads out": lambda c: dense(c)["config"].update(name="../../dense"),
    "nested": lambda c: c["config"]["layers"].append(
        {"module": "keras", "class_name": "Sequential", "registered_name": None, "name": "s",
         "config": {"name": "s", "layers": [{"module": "keras.layers", "class_name": "Lambda",
                                             "config": {}}]}, "inbound_nodes": []}
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", CONFIGS)
def test_configurations_that_reach_out_are_refused(
    tmp_path: Path, good: Entries, attack: str
) -> None:
    path = written(tmp_path / "model.keras", with_config(good, CONFIGS[attack]))
    with pytest.raises(SourceError, match=r"configuration has .*, which could reach beyond it"):
        load_keras(path)


def kernel(file: h5py.File) -> tuple[h5py.Group, str]:
    return file["layers/dense/vars"], "0"


def test_weights_that_are_links_to_other_files_are_refused(tmp_path: Path, good: Entries) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.full((4, 3), 7, np.float32)

    def link(file: h5py.File) -> None:
        group, name = kernel(file)
        del group[name]
        group[name] = h5py.ExternalLink(str(secret), "data")

    def soft(file: h5py.File) -> None:
        file["more"] = h5py.SoftLink("/layers")

    def folder(file: h5py.File) -> None:
        del file["layers/dense"]
        file["layers/dense"] = h5py.ExternalLink(str(secret), "/")

    def virtual(file: h5py.File) -> None:
        group, name = kernel(file)
        del group[name]
        layout = h5py.VirtualLayout((4, 3), np.float32)
        layout[:] = h5py.VirtualSource(str(secret), "data", (4, 3))
        group.create_virtual_dataset(name, layout)

    def external(file: h5py.File) -> None:
        group, name = kernel(file)
        del group[name]
        group.create_dataset(name, (4, 3), np.float32, external=[(str(secret), 0, 48)])

    for change, match in (
        (link, "have a link"),
        (soft, "have a link"),
        (folder, "have a link"),
        (virtual, "stored in another file"),
        (external, "stored in another file"),
    ):
        if change is soft:
            entries = with_weights(
                good, lambda file: file.__setitem__("x", h5py.SoftLink("/layers"))
            )
        else:
            entries = with_weights(good, change)
        with pytest.raises(SourceError, match=match):
            load_keras(written(tmp_path / "model.keras", entries))


def test_weights_that_are_not_stored_as_numbers_are_refused(tmp_path: Path, good: Entries) -> None:
    def replaced(**options: Any) -> Callable[[h5py.File], None]:
        def change(file: h5py.File) -> None:
            group, name = kernel(file)
            del group[name]
            group.create_dataset(name, **options)

        return change

    for options, match in (
        ({"shape": (1 << 20, 1 << 20), "dtype": "f4", "chunks": (16, 16)}, "larger than"),
        ({"data": np.zeros((4, 3), "f4"), "compression": "gzip"}, "by a filter"),
        ({"data": ["text"] * 3}, "expected numbers"),
    ):
        path = written(tmp_path / "model.keras", with_weights(good, replaced(**options)))
        with pytest.raises(SourceError, match=match):
            load_keras(path)


@pytest.mark.parametrize(
    "name",
    ["../outside", "assets/../../outside", "/absolute", "Config.json", "x.py",
     "model.weights.npz", "assets/..", "assets//x"],
)  # fmt: skip
def test_other_entries_are_refused(tmp_path: Path, good: Entries, name: str) -> None:
    path = written(tmp_path / "model.keras", {name: b"x", **good})
    with pytest.raises(SourceError, match=r"does not belong there|two entries named"):
        load_keras(path)


@pytest.mark.parametrize("entry", ["config.json", "model.weights.h5"])
@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_damaged_entries_are_refused(
    tmp_path: Path, good: Entries, entry: str, content: bytes
) -> None:
    with pytest.raises(SourceError):
        load_keras(written(tmp_path / "model.keras", {**good, entry: content}))


def test_what_models_are_trained_with_is_not_read(tmp_path: Path, good: Entries) -> None:
    hostile = {"loss": {"class_name": "function", "module": "keras.saving", "config": "load_model"}}

    def change(config: Any) -> None:
        config["compile_config"] = hostile
        dense(config)["compile_config"] = hostile

    path = written(tmp_path / "model.keras", with_config(good, change))
    assert load_keras(path).input_shape == (None, 4)


def various() -> dict[str, keras.Model]:
    """Models with layers of each kind."""
    image, words = keras.Input((8, 8, 3), name="image"), keras.Input((5,), name="words")
    x = keras.layers.Rescaling(0.5)(image)
    x = keras.layers.Conv2D(
        4, 3, kernel_initializer="he_normal", kernel_regularizer=keras.regularizers.L2(0.1),
        kernel_constraint="max_norm",
    )(x)  # fmt: skip
    x = keras.layers.BatchNormalization()(x)
    x = keras.activations.gelu(keras.ops.add(x, 1.0))
    x = keras.layers.GlobalAveragePooling2D()(x)
    y = keras.layers.Embedding(10, 4, mask_zero=True)(words)
    y = keras.layers.Bidirectional(keras.layers.LSTM(3))(y)
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation=keras.ops.tanh)])
    inner.compile("adam", loss="mse", metrics=["mae"])
    outputs = {"inner": inner(x), "both": keras.layers.Concatenate()([x, y])}
    functional = keras.Model([image, words], outputs)
    functional.compile("sgd", loss={"inner": "mse", "both": keras.losses.Huber()})
    text = keras.Input((1,), dtype="string", name="text")
    lookup = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    mixed = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype="mixed_bfloat16")])
    return {
        "functional": functional,
        "vocabulary": keras.Model(text, keras.layers.Dense(2)(lookup(text))),
        "mixed": mixed,
    }


@pytest.mark.parametrize("name", ["functional", "vocabulary", "mixed"])
def test_models_of_many_layers_are_still_loaded(tmp_path: Path, name: str) -> None:
    model = various()[name]
    model.save(tmp_path / "model.keras")
    found = load_keras(tmp_path / "model.keras")
    assert len(found.weights) == len(model.weights)
    for one, other in zip(found.weights, model.weights, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other)
        )

"""Keras files, SavedModels and LiteRT files of other makers, from the command line."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from tests.conftest import Run

# Keras, on its own way to NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
BENCH = ("--warmup", 1, "--runs", 11, "--json")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Two inputs, one of them an image, and two outputs by name."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    extra = keras.Input((4,), name="extra")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Concatenate()([x, extra])
    scores = keras.layers.Dense(3, name="head")(x)
    value = keras.layers.Dense(1, activation="tanh", name="value")(x)
    made = keras.Model([image, extra], {"scores": scores, "value": value})
    for variable in made.weights:  # no two alike, as after training
        variable.assign(keras.random.uniform(variable.shape, 0.5, 1.5))
    return made


@pytest.fixture(scope="module")
def place(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """theirs.keras, and the SavedModel `exported`."""
    place = tmp_path_factory.mktemp("keras")
    model.save(place / "theirs.keras")
    model.export(place / "exported", verbose=False)
    return place


@pytest.mark.parametrize("source", ["theirs.keras", "exported"])
def test_it_is_inspected(toolkit_cli: Run, place: Path, source: str) -> None:
    done = toolkit_cli("inspect", place / source, "--json")
    assert done.returncode == 0, done.stderr
    assert "oneDNN" not in done.stderr
    shown = json.loads(done.stdout)
    inputs = {spec["name"]: spec["shape"] for spec in shown["signature"]["inputs"]}
    assert inputs == {"image": ["batch", 8, 8, 3], "extra": ["batch", 4]}
    assert {spec["name"] for spec in shown["signature"]["outputs"]} == {"scores", "value"}
    # Conv, norm, head, value; the bias of the last is a single number.
    assert shown["parameters"] == (108 + 4) + 4 * 4 + (148 * 3 + 3) + 148
    assert shown["precision"] == "float32"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("theirs.keras", "savedmodel"),
        ("theirs.keras", "onnx"),
        ("exported", "litert"),
        ("exported", "openvino"),
    ],
)
def test_it_is_exported_proved_and_measured(
    toolkit_cli: Run, place: Path, tmp_path: Path, source: str, target: str
) -> None:
    done = toolkit_cli("export", place / source, "--to", target, "--out", "art", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["weights"]["passed"]
    assert document["outputs"]["reference"] == "tensorflow"
    runtime = document["outputs"]["runtime"]
    done = toolkit_cli("bench", "art", "--runtime", f"tensorflow,{runtime}", *BENCH)
    assert done.returncode == 0, done.stderr
    assert {row["status"] for row in json.loads(done.stdout)["rows"]} == {"ok"}
    done = toolkit_cli("parity", "weights", place / source, "art")
    assert done.returncode == 0, done.stdout


def test_a_keras_file_runs_as_it_is(toolkit_cli: Run, place: Path) -> None:
    done = toolkit_cli("bench", place / "theirs.keras", *BENCH)
    assert done.returncode == 0, done.stderr
    rows = {row["runtime"]: row["status"] for row in json.loads(done.stdout)["rows"]}
    assert rows == {"tensorflow": "ok", "tensorflow-xla": "ok"}


def test_images_may_be_turned(toolkit_cli: Run, place: Path, checkpoint_dir: Path) -> None:
    """Channels first for one that takes them last, and the reverse; rows are turned with them."""
    for source, layout, shape in (
        (place / "theirs.keras", "NCHW", ["batch", 3, 8, 8]),
        (checkpoint_dir, "NHWC", ["batch", 32, 32, 3]),
    ):
        out = f"{layout}-art"
        done = toolkit_cli(
            "export", source, "--to", "onnx", "--via", "savedmodel", "--layout", layout,
            "--out", out, "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["outputs"]["passed"]
        shown = json.loads(toolkit_cli("inspect", out, "--json").stdout)
        assert shown["signature"]["inputs"][0]["shape"] == shape
        done = toolkit_cli("bench", out, "--runtime", "onnxruntime", *BENCH)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)["rows"]
        assert (row["status"], row["parity"]["passed"]) == ("ok", True)
    done = toolkit_cli("verify", out, "--data", "digits", "--runtime", "onnxruntime")
    assert done.returncode == 0, done.stderr


def test_a_layout_is_no_option_of_torch_s_exporter(toolkit_cli: Run, checkpoint_dir: Path) -> None:
    done = toolkit_cli("export", checkpoint_dir, "--to", "onnx", "--layout", "NHWC", "--out", "x")
    assert done.returncode == 2
    assert "Got --layout, which has no effect" in done.stderr
    done = toolkit_cli(
        "export", checkpoint_dir, "--to", "litert", "--layout", "nhwcc", "--out", "x"
    )
    assert done.returncode == 2
    assert "Known: NCHW, NHWC" in done.stderr


def test_a_layer_of_python_is_not_run(toolkit_cli: Run, tmp_path: Path) -> None:
    inputs = keras.Input((4,))
    outputs = keras.layers.Lambda(lambda x: x * 2)(inputs)
    keras.Model(inputs, outputs).save(tmp_path / "lambda.keras")
    for command in (("inspect",), ("bench",), ("export", "--to", "litert", "--out", "x")):
        done = toolkit_cli(command[0], "lambda.keras", *command[1:])
        assert done.returncode == 2
        assert "'Lambda' of 'keras.layers'" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_graph_that_writes_files_is_not_run(toolkit_cli: Run, tmp_path: Path) -> None:
    target = tmp_path / "written"
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        tf.io.write_file(str(target), "gotcha")
        return {"y": x + 1}

    module.serve = serve
    tf.saved_model.save(module, str(tmp_path / "evil"), signatures={"serving_default": serve})
    for command in (("inspect",), ("bench",), ("export", "--to", "onnx", "--out", "x")):
        done = toolkit_cli(command[0], "evil", *command[1:])
        assert done.returncode == 2
        assert "WriteFile" in done.stderr
    assert not target.exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "escaping", "no weights"])
def test_a_damaged_keras_file_is_told(
    toolkit_cli: Run, place: Path, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "bad.keras"
    content = (place / "theirs.keras").read_bytes()
    if damage in ("truncated", "empty"):
        path.write_bytes(content[: len(content) // 2 if damage == "truncated" else 0])
    else:
        with (
            zipfile.ZipFile(place / "theirs.keras") as whole,
            zipfile.ZipFile(path, "w") as archive,
        ):
            for record in whole.infolist():
                if damage == "escaping" or "weights" not in record.filename:
                    archive.writestr(record, whole.read(record))
            if damage == "escaping":
                archive.writestr("../../escaped", "x")
    done = toolkit_cli("inspect", "bad.keras")
    assert done.returncode == 2, done.stderr
    assert "bad.keras" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_of_something_else_is_no_savedmodel(toolkit_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "saved_model.pb").write_bytes(b"\x00garbage")
    done = toolkit_cli("inspect", "dir")
    assert done.returncode == 2
    assert "SavedModel" in done.stderr

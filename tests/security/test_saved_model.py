"""SavedModels whose graphs try to reach files, processes or Python."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

from models.keras.program import load_serving
from toolkit.core.errors import SourceError

# Keras, on its own way to NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def saved(
    function: Callable[[tf.Tensor], tf.Tensor], place: Path, table: object | None = None
) -> Path:
    """A SavedModel that serves a function of [N, 2] float32, and holds the table that it uses."""
    module = tf.Module()
    module.table = table

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")], autograph=False)
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": function(x)}

    module.serve = serve
    tf.saved_model.save(module, str(place), signatures={"serving_default": serve})
    return place


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel of Keras' export."""
    model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(3)])
    place = tmp_path_factory.mktemp("saved") / "good"
    model.export(place, verbose=False)
    return place


def changed(good: Path, place: Path, change: Callable[[Any], object]) -> Path:
    """A copy of a SavedModel with a change to its first graph."""
    shutil.copytree(good, place, symlinks=True)
    path = place / "saved_model.pb"
    document = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(document.meta_graphs[0])
    path.write_bytes(document.SerializeToString())
    return place


def dependent(x: tf.Tensor, operation: tf.Operation) -> tf.Tensor:
    with tf.control_dependencies([operation]):
        return tf.identity(x)


def python(x: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(tf.py_function(lambda y: y, [x], tf.float32), [None, 2])


def data_set(x: tf.Tensor) -> tf.Tensor:
    rows = tf.data.TextLineDataset("/etc/passwd").map(tf.strings.length)
    return x + tf.cast(rows.reduce(0, lambda one, other: one + other), tf.float32)


FUNCTIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "WriteFile": lambda x: dependent(x, tf.io.write_file("/tmp/nowhere/x", "x")),
    "ReadFile": lambda x: x + tf.cast(tf.size(tf.io.read_file("/etc/passwd")), tf.float32),
    "MatchingFiles": lambda x: x + tf.cast(tf.size(tf.io.matching_files("/*")), tf.float32),
    "EagerPyFunc": python,
    "TextLineDataset": data_set,
    "PrintV2": lambda x: dependent(x, tf.raw_ops.PrintV2(input="x")),
    "SaveV2": lambda x: dependent(
        x, tf.raw_ops.SaveV2(prefix="/tmp/nowhere/x", tensor_names=["a"], shape_and_slices=[""],
                             tensors=[x])
    ),
    "RestoreV2": lambda x: x + tf.raw_ops.RestoreV2(
        prefix="/tmp/nowhere/x", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
    )[0],
    "ImmutableConst": lambda x: x + tf.raw_ops.ImmutableConst(
        dtype=tf.float32, shape=[2], memory_region_name="/etc/passwd"
    ),
    "DecodeProtoV2": lambda x: x + tf.cast(tf.size(tf.io.decode_proto(
        tf.constant([b""]), "x", ["y"], [tf.int32], "/etc/passwd").sizes), tf.float32),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("operator", FUNCTIONS)
def test_operators_that_reach_out_are_refused(tmp_path: Path, operator: str) -> None:
    place = saved(FUNCTIONS[operator], tmp_path / "evil")
    with pytest.raises(SourceError, match=operator):
        load_serving(place)


def test_operators_that_tensorflow_does_not_have_are_refused(tmp_path: Path, good: Path) -> None:
    for name in ("NoSuchOperator", "_Send", "XlaHostCompute"):
        place = changed(
            good,
            tmp_path / name,
            lambda graph, name=name: graph.graph_def.node.add(name="x", op=name),
        )
        with pytest.raises(SourceError, match=name):
            load_serving(place)


def saver(graph: Any) -> str:
    """The function that saves variables."""
    (found,) = (
        one.signature.name
        for one in graph.graph_def.library.function
        if "traced_save" in one.signature.name
    )
    return str(found)


def called_by_init(graph: Any) -> None:
    """The operator that runs on loading calls the saver."""
    (node,) = (one for one in graph.graph_def.node if one.name == "NoOp")
    node.input.append(f"^{graph.saver_def.save_tensor_name.partition(':')[0]}")


def called_by_a_function(graph: Any) -> None:
    """What the model serves calls the saver."""
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            if "f" in node.attr and "save" not in function.signature.name:
                node.attr["f"].func.name = saver(graph)


def a_function_itself(graph: Any) -> None:
    graph.object_graph_def.concrete_functions[
        saver(graph)
    ].canonicalized_input_signature.SetInParent()


def called_on_restoring(graph: Any) -> None:
    graph.saver_def.restore_op_name = graph.saver_def.save_tensor_name.partition(":")[0]


@pytest.mark.parametrize(
    "change", [called_by_init, called_by_a_function, a_function_itself, called_on_restoring]
)
def test_savers_that_others_reach_are_refused(
    tmp_path: Path, good: Path, change: Callable[[Any], None]
) -> None:
    with pytest.raises(SourceError, match="used outside the functions that save"):
        load_serving(changed(good, tmp_path / "evil", change))


def test_assets_that_lead_out_are_refused(tmp_path: Path, good: Path) -> None:
    def change(graph: Any) -> None:
        graph.asset_file_def.add(filename="../../etc/passwd").tensor_info.name = "x:0"

    with pytest.raises(SourceError, match="an asset named"):
        load_serving(changed(good, tmp_path / "evil", change))


@pytest.mark.parametrize("name", ["saved_model.pbtxt", "saved_model.cpb"])
def test_a_second_graph_is_refused(tmp_path: Path, good: Path, name: str) -> None:
    shutil.copytree(good, tmp_path / "evil")
    document = saved_model_pb2.SavedModel()
    (tmp_path / "evil" / name).write_text(text_format.MessageToString(document))
    with pytest.raises(SourceError, match="a second graph"):
        load_serving(tmp_path / "evil")


@pytest.mark.parametrize("part", ["variables", "saved_model.pb", "assets/words.txt"])
def test_links_that_leave_the_directory_are_refused(tmp_path: Path, good: Path, part: str) -> None:
    place, elsewhere = tmp_path / "evil", tmp_path / "elsewhere"
    shutil.copytree(good, place)
    (place / "assets").mkdir(exist_ok=True)
    if (place / part).exists():
        shutil.move(place / part, elsewhere)
    (place / part).symlink_to(elsewhere)
    with pytest.raises(SourceError, match="is a link to"):
        load_serving(place)


@pytest.mark.parametrize("content", [b"", b"\x00garbage", b"\xff" * 100])
def test_what_is_no_savedmodel_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(SourceError, match="SavedModel"):
        load_serving(tmp_path)


def test_graphs_of_many_kinds_are_still_loaded(tmp_path: Path, good: Path) -> None:
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer([0, 1], [1.0, 2.0], tf.int32, tf.float32), 0.0
    )

    def varied(x: tf.Tensor) -> tf.Tensor:
        """Tables, random numbers, control flow and calls."""
        y = x * table.lookup(tf.cast(x, tf.int32)) + tf.random.normal([2]) * 0.0
        y = tf.cond(tf.reduce_sum(y) > 0, lambda: y, lambda: -y)
        _, y = tf.while_loop(lambda i, _: i < 3, lambda i, z: (i + 1, z + 1.0), [0, y])
        tf.debugging.assert_all_finite(y, "x")
        return tf.map_fn(lambda row: row * 2.0, y)

    serving = load_serving(saved(varied, tmp_path / "varied", table))
    assert serving(x=tf.ones([4, 2]))["y"].shape == (4, 2)
    assert load_serving(good)(x=tf.ones([4, 2])).popitem()[1].shape == (4, 3)


def test_an_export_of_a_recurrence_and_random_layers_is_still_loaded(tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((5, 4), name="x"),
            keras.layers.GaussianNoise(0.1),
            keras.layers.Bidirectional(keras.layers.LSTM(3)),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2),
        ]
    )
    model.compile("adam", loss="mse")
    model.export(tmp_path / "model", verbose=False)
    assert load_serving(tmp_path / "model")(x=tf.ones([3, 5, 4])).popitem()[1].shape == (3, 2)

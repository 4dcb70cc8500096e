"""The values that a graph expects of its inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.onnx.ranges import input_ranges
from toolkit.sources.inputs import InputRequest, Noise, RandomInput, noise_source
from toolkit.sources.resolve import open_artifact

TABLE = np.ones((50, 8), np.float32)
WHOLE = TensorProto.INT64


def saved(
    path: Path, nodes: list[onnx.NodeProto], kind: int = WHOLE, **constants: np.ndarray
) -> Path:
    """A graph from x [batch, 4] to y."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, path / "g.onnx")
    return path / "g.onnx"


def node(kind: str, inputs: str, output: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


CAST = node("Cast", "y0", "y", to=TensorProto.FLOAT)
RANGES = {
    "gather": ([node("Gather", "t x")], {"t": TABLE}, (0, 50)),
    "gather of a computed table": (
        [node("Transpose", "t", "s", perm=[1, 0]), node("Gather", "s x")], {"t": TABLE}, (0, 8)
    ),
    "the smaller of two tables": (
        [node("Gather", "t x", "a"), node("Gather", "u x", "b"), node("Concat", "a b", axis=-1)],
        {"t": TABLE, "u": TABLE[:7]},
        (0, 7),
    ),
    "an offset that is added": (
        [node("Add", "x two", "p"), node("Gather", "t p")], {"t": TABLE, "two": np.int64(2)},
        (0, 48),
    ),
    "an offset that is subtracted": (
        [node("Sub", "x two", "p"), node("Gather", "t p")], {"t": TABLE, "two": np.int64([2])},
        (2, 52),
    ),
    "one of several that are joined": (
        [node("Concat", "x start", "j", axis=1), node("Gather", "t j")],
        {"t": TABLE, "start": np.zeros((1, 1), np.int64)}, (0, 50),
    ),
    "one hot": ([node("OneHot", "x depth v")],
                {"depth": np.int64(9), "v": np.float32([0, 1])}, (0, 9)),
    "equal": ([node("Equal", "x pad", "y0"), CAST], {"pad": np.int64(5)}, (0, 6)),
    "indices count more than comparisons": (
        [node("Equal", "x pad", "m"), node("Gather", "t x")],
        {"t": TABLE, "pad": np.int64(99)}, (0, 50),
    ),
    "clip": ([node("Clip", "x a b", "y0"), CAST], {"a": np.int64(1), "b": np.int64(6)}, (1, 7)),
    "no use that tells": ([node("Cast", "x", to=TensorProto.FLOAT)], {}, None),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "constants", "expected"), RANGES.values(), ids=RANGES.keys())
def test_a_range_is_found_from_how_an_input_is_used(tmp_path, nodes, constants, expected) -> None:
    found = input_ranges(saved(tmp_path, nodes, **constants))
    assert found.get("x") == expected


def test_a_floating_point_input_that_is_an_index_is_drawn_as_one(tmp_path: Path) -> None:
    """Keras passes token numbers as float32 by default."""
    nodes = [node("Cast", "x", "i", to=WHOLE), node("Gather", "t i")]
    path = saved(tmp_path, nodes, TensorProto.FLOAT, t=TABLE)
    noise = noise_source(open_artifact(path), InputRequest())
    drawn = np.concatenate([feeds["x"] for feeds in noise.sets(64)])
    assert drawn.dtype == np.float32
    assert (drawn == np.floor(drawn)).all()
    assert (drawn.min(), drawn.max()) == (0, 49)
    assert not noise.unbounded


def test_every_row_of_a_mask_has_both_values(tmp_path: Path) -> None:
    """Or attention would be given nothing to attend to."""
    path = saved(tmp_path, [node("Cast", "x", to=TensorProto.FLOAT)], TensorProto.BOOL)
    noise = noise_source(open_artifact(path), InputRequest())
    for feeds in noise.sets(256):
        assert feeds["x"].any(axis=-1).all()
        assert not feeds["x"].all(axis=-1).any()


def test_what_is_stated_is_kept_to(tmp_path: Path) -> None:
    nodes = [node("Cast", "x", "i", to=WHOLE), node("Gather", "t i")]
    path = saved(tmp_path, nodes, t=TABLE)
    request = InputRequest(random={"x": RandomInput(low=1, high=3)})
    noise = noise_source(open_artifact(path), request)
    assert isinstance(noise, Noise)
    assert set(np.unique([feeds["x"] for feeds in noise.sets(64)])) == {1, 2}


def test_what_is_stated_of_a_floating_point_input_is_no_edge_to_try(tmp_path: Path) -> None:
    path = saved(tmp_path, [node("Log", "x")], TensorProto.FLOAT)
    artifact = open_artifact(path)
    assert noise_source(artifact, InputRequest()).unbounded == {"x"}
    shaped = InputRequest(random={"x": RandomInput(shape=(2, 4))})
    assert noise_source(artifact, shaped).unbounded == {"x"}
    assert not noise_source(artifact, InputRequest(random={"x": RandomInput(low=1)})).unbounded

"""ONNX files whose external data is somewhere else, or not as large as declared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from exporters.onnx.reader import OnnxTensors
from toolkit.core.errors import SourceError

READERS = ("describe", "stored_tensors")


def written(
    path: Path,
    entries: dict[str, str],
    *,
    shape: tuple[int, ...] = (4,),
    where: str = "initializer",
    external: bool = True,
) -> Path:
    """A model that adds a tensor of float32, stored in weights.bin, to its input."""
    weight = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=shape,
        data_location=TensorProto.EXTERNAL if external else TensorProto.DEFAULT,
    )  # fmt: skip
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    if not external:
        weight.raw_data = bytes(16)
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    if where == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=weight))
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [weight] if where == "initializer" else [],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    path.write_bytes(model.SerializeToString())
    (path.parent / "weights.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    return path


def test_external_data_in_the_folder_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "model.onnx", {"location": "weights.bin", "length": "16"})
    assert list(OnnxTensors().describe(path).files) == ["model.onnx", "weights.bin"]
    (tensor,) = OnnxTensors().stored_tensors(path)
    np.testing.assert_array_equal(tensor.array, np.arange(4, dtype=np.float32))


@pytest.mark.parametrize("where", ["initializer", "constant"])
@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "location",
    ["/etc/passwd", "../secret.bin", "a/../../secret.bin", "weights.bin\0", "\0", "", ".", "..",
     "nosuch.bin", "link.bin"],
)  # fmt: skip
def test_locations_elsewhere_are_refused(
    tmp_path: Path, location: str, read: str, where: str
) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    place = tmp_path / "model"
    place.mkdir()
    (place / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = written(place / "model.onnx", {"location": location}, where=where)
    with pytest.raises(SourceError):
        getattr(OnnxTensors(), read)(path)


@pytest.mark.parametrize("location", ["../secret.bin", "weights.bin\0", "nosuch.bin"])
def test_locations_of_tensors_that_are_in_the_file_are_not_read(
    tmp_path: Path, location: str
) -> None:
    path = written(tmp_path / "model.onnx", {"location": location}, external=False)
    assert list(OnnxTensors().describe(path).files) == ["model.onnx"]


@pytest.mark.parametrize(
    "entries",
    [
        {"length": str(1 << 62)},
        {"length": "-1"},
        {"length": "x"},
        {"length": "9" * 5000},
        {"offset": "-8"},
        {"offset": str(1 << 70)},
        {"offset": "8"},
    ],
    ids=str,
)
def test_places_outside_the_file_are_refused(tmp_path: Path, entries: dict[str, str]) -> None:
    path = written(tmp_path / "model.onnx", {"location": "weights.bin", **entries})
    with pytest.raises(SourceError):
        OnnxTensors().stored_tensors(path)


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 62, 1 << 62), (-4,), (5,)])
def test_shapes_larger_than_the_data_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = written(tmp_path / "model.onnx", {"location": "weights.bin"}, shape=shape)
    with pytest.raises(SourceError):
        OnnxTensors().stored_tensors(path)


numbers = st.integers(-(2**70), 2**70).map(str) | st.text(max_size=4)
locations = st.sampled_from(["weights.bin", "./weights.bin", "model.onnx", "sub/weights.bin"])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    location=locations | st.text(max_size=8).filter(lambda text: text.isprintable()),
    offset=st.none() | st.sampled_from(["0", "4", "16"]) | numbers,
    length=st.none() | st.sampled_from(["0", "12", "16"]) | numbers,
    shape=st.lists(st.integers(-2, 5) | st.integers(0, 2**62), max_size=3),
    where=st.sampled_from(["initializer", "constant"]),
)
def test_any_external_data_is_read_or_refused(
    tmp_path: Path,
    location: str,
    offset: str | None,
    length: str | None,
    shape: list[int],
    where: str,
) -> None:
    given = {"location": location, "offset": offset, "length": length}
    entries = {key: value for key, value in given.items() if value is not None}
    path = written(tmp_path / "model.onnx", entries, shape=tuple(shape), where=where)
    try:
        described = OnnxTensors().describe(path)
        stored = OnnxTensors().stored_tensors(path)
    except SourceError:
        return
    assert all((tmp_path / name).resolve().is_relative_to(tmp_path) for name in described.files)
    assert all(tensor.array.nbytes <= 1000 for tensor in stored)
    assert onnx.load(path).graph.node

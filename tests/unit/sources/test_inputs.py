"""What is drawn for the inputs of a model, and what is said of axes without an extent."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import toolkit
from toolkit.core.errors import UnknownNameError, UsageError
from toolkit.core.specs import Signature, TensorSpec
from toolkit.sources.inputs import (
    InputRequest,
    Noise,
    RandomInput,
    check_names,
    implied_batch,
    input_source,
    shapes_of,
)
from toolkit.sources.resolve import open_artifact


def of(**shapes: tuple[int | str | None, ...]) -> Signature:
    inputs = tuple(TensorSpec(name=n, dtype="float32", shape=s) for n, s in shapes.items())
    return Signature(inputs=inputs, outputs=())


PICTURES = of(x=("batch", 3, None, None), y=("batch", "time"))


def test_all_axes_without_an_extent_are_named_at_once_with_options_to_paste() -> None:
    with pytest.raises(UsageError) as caught:
        shapes_of(PICTURES, 2, InputRequest())
    for axis in ("axis 2 of x", "axis 3 of x", "axis 1 of y"):
        assert axis in caught.value.problem
    assert caught.value.hint == (
        "Give each an extent, such as: --dim x:2=16 --dim x:3=16 --dim time=16"
    )
    request = InputRequest(dims={"x:2": 48, "x:3": 32, "time": 7})
    check_names(PICTURES, request)
    assert shapes_of(PICTURES, 2, request) == {"x": (2, 3, 48, 32), "y": (2, 7)}


def test_an_axis_that_is_fixed_takes_no_extent() -> None:
    with pytest.raises(UnknownNameError, match="x:1"):
        check_names(PICTURES, InputRequest(dims={"x:1": 3}))


@pytest.mark.parametrize(
    ("signature", "request_", "batch"),
    [
        (of(x=("n", 4)), InputRequest(), None),
        (of(x=("n", 4)), InputRequest(dims={"n": 5}), 5),
        (of(x=(None, 4)), InputRequest(dims={"x:0": 5}), 5),
        (of(x=("time", "batch")), InputRequest(random={"x": RandomInput(shape=(7, 5))}), 5),
        (of(x=(3, 4)), InputRequest(), 3),
        (of(), InputRequest(), 1),
        (of(step=()), InputRequest(), 1),
    ],
)
def test_the_batch_that_is_asked_for(
    signature: Signature, request_: InputRequest, batch: int | None
) -> None:
    assert implied_batch(signature, request_) == batch


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "int4", "uint8", "bool"])
def test_values_of_every_dtype_of_numbers_are_drawn(name: str) -> None:
    spec = TensorSpec(name="x", dtype=name, shape=("batch", 8))
    noise = Noise(Signature(inputs=(spec,), outputs=()), InputRequest(), {}, "random")
    first, *_ = noise.sets(3)
    assert first["x"].dtype.name == name
    assert len(np.unique(first["x"].astype(np.float64))) > 1


def saved(path: Path, kind: int) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", 2])],
        [helper.make_tensor_value_info("y", kind, ["n", 2])],
    )
    opsets = [helper.make_opsetid("", 19)]
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=opsets), path)
    return path


def test_strings_cannot_be_drawn(tmp_path: Path) -> None:
    artifact = open_artifact(saved(tmp_path / "g.onnx", TensorProto.STRING))
    with pytest.raises(UsageError, match="holds strings") as caught:
        input_source(artifact, InputRequest()).sets(1)
    assert "an array of strings" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        (TensorProto.BFLOAT16, np.arange(6.0).reshape(3, 2).astype(ml_dtypes.bfloat16)),
        (TensorProto.STRING, np.array([["a", "b"], ["c", "dd"], ["", "e"]])),
    ],
)
def test_arrays_of_a_file_have_the_dtype_of_the_input(
    tmp_path: Path, kind: int, rows: np.ndarray
) -> None:
    path = saved(tmp_path / "g.onnx", kind)
    np.savez(tmp_path / "rows.npz", x=rows)
    request = InputRequest(file=tmp_path / "rows.npz")
    first, *_ = input_source(open_artifact(path), request).sets(3)
    with toolkit.load(path) as session:
        found = session.run(first)["y"]
    assert {tuple(row) for row in found.tolist()} == {tuple(row) for row in rows.tolist()}


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_what_may_be_a_mask_has_both_values_in_each_row(dtype: str) -> None:
    spec = TensorSpec(name="mask", dtype=dtype, shape=("batch", 3))
    noise = Noise(Signature(inputs=(spec,), outputs=()), InputRequest(), {}, "")
    rows = np.concatenate([feeds["mask"] for feeds in noise.sets(64)])
    assert (rows != rows[:, :1]).any(axis=1).all()
    # Of numbers 1 allows attention, and a causal model's first token attends to itself alone.
    assert dtype == "bool" or rows[:, 0].all()
    assert 0 < rows[:, 1].mean() < 1


def test_a_graph_gets_rows_of_the_example_that_its_module_was_captured_with(
    tmp_path: Path,
) -> None:
    (tmp_path / "net.py").write_text(MASKED)
    toolkit.export(f"{tmp_path}/net.py:make", to="onnx", out=tmp_path / "onnx")
    source = input_source(open_artifact(tmp_path / "onnx"), InputRequest())
    (feeds, *_) = source.sets(8)
    assert {tuple(row) for row in feeds["mask"]} <= {(1, 1, 1, 0), (1, 1, 0, 0)}


MASKED = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(4, 3)

    def forward(self, x, mask):
        return self.last(x * mask)

def make():
    return Net(), (torch.randn(2, 4), torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]))
"""

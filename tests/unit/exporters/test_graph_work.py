"""Bytes, shapes that are followed through a graph, and what is not counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from exporters.analysis.operation_counts import count_work
from tests.unit.exporters.onnx_models import Shapes
from toolkit.core.codec import decode, encode
from toolkit.core.errors import SourceError, UsageError
from toolkit.core.work import Work

FLOAT = TensorProto.FLOAT
W = np.ones((4, 4), np.float32)
node = helper.make_node
value = helper.make_tensor_value_info


def model(
    nodes: list[onnx.NodeProto],
    *,
    x: tuple = ("batch", 4),
    y: tuple | None = None,
    stored: dict[str, np.ndarray] | None = None,
    said: dict[str, tuple] | None = None,
    outputs: tuple[str, ...] = ("y",),
    kind: int = FLOAT,
) -> onnx.ModelProto:
    """From `x` and stored tensors (by default `w`) to `outputs`; `said` goes into value_info."""
    arrays = {"w": W} if stored is None else stored
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", kind, x)],
        [value(name, FLOAT, y) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        value_info=[value(name, FLOAT, shape) for name, shape in (said or {}).items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("my.own", 1)]
    return helper.make_model(graph, ir_version=9, opset_imports=opsets)


def count(tmp_path: Path, made: onnx.ModelProto, x: tuple[int, ...] = (8, 4)) -> Work:
    onnx.save(made, tmp_path / "model.onnx")
    return count_work(tmp_path / "model.onnx", {"x": x})


MATMUL_RELU = [node("MatMul", ["x", "w"], ["t"]), node("Relu", ["t"], ["y"])]


def test_least_and_unfused_bytes(tmp_path: Path) -> None:
    """x, w and y once; or each node's own: x, w, t; t, y. x, t and y have 128 bytes, w has 64."""
    assert count(tmp_path, model(MATMUL_RELU)) == Work(
        matrix_operations=2 * 8 * 4 * 4,
        other_operations=32,
        least_bytes=128 + 64 + 128,
        unfused_bytes=(128 + 64 + 128) + (128 + 128),
    )


@settings(deadline=None, max_examples=25)
@given(batch=st.integers(0, 300), layers=st.integers(1, 5))
def test_a_chain_of_products(
    tmp_path_factory: pytest.TempPathFactory, batch: int, layers: int
) -> None:
    nodes = [node("MatMul", [f"x{i or ''}", "w"], [f"x{i + 1}"]) for i in range(layers)]
    nodes.append(node("Identity", [f"x{layers}"], ["y"]))
    work = count(tmp_path_factory.mktemp("chain"), model(nodes), (batch, 4))
    assert work.matrix_operations == layers * 2 * batch * 16
    assert work.least_bytes == 64 + 2 * 16 * batch
    assert work.unfused_bytes == layers * (64 + 2 * 16 * batch)


def test_a_tensor_that_only_dead_nodes_read_does_not_count(tmp_path: Path) -> None:
    dead = [node("MatMul", ["x", "unused"], ["nowhere"])]
    stored = {"w": W, "unused": W, "unread": W}
    assert count(tmp_path, model([*dead, *MATMUL_RELU], stored=stored)) == count(
        tmp_path, model(MATMUL_RELU)
    )


def test_what_depends_on_constants_alone_is_done_once(tmp_path: Path) -> None:
    """So the transposition of a weight moves nothing in a pass, and the weight moves once."""
    nodes = [
        node("Constant", [], ["two"], value_float=2.0),
        node("Mul", ["w", "two"], ["doubled"]),
        node("Transpose", ["doubled"], ["v"]),
        node("MatMul", ["x", "v"], ["t"]),
        node("Relu", ["t"], ["y"]),
    ]
    work, plain = count(tmp_path, model(nodes)), count(tmp_path, model(MATMUL_RELU))
    assert work.other_operations == plain.other_operations
    assert work.unfused_bytes == plain.unfused_bytes
    assert work.least_bytes == plain.least_bytes + 4


def test_random_numbers_are_drawn_at_every_pass(tmp_path: Path) -> None:
    nodes = [
        node("RandomNormal", [], ["noise"], shape=[8, 4]),
        node("Add", ["x", "noise"], ["y"]),
    ]
    work = count(tmp_path, model(nodes, stored={}))
    assert (work.other_operations, work.uncounted) == (32, {"RandomNormal": 1})
    assert work.unfused_bytes == 128 + 3 * 128


def test_a_table_is_read_as_far_as_its_rows_are_wanted(tmp_path: Path) -> None:
    table = np.ones((10_000, 16), np.float32)
    gather = [node("Gather", ["table", "x"], ["y"])]
    work = count(
        tmp_path, model(gather, x=("n",), stored={"table": table}, kind=TensorProto.INT64), (3,)
    )
    assert work.least_bytes == work.unfused_bytes == 3 * 8 + 2 * (3 * 64)
    every = count(
        tmp_path,
        model(gather, x=("n",), stored={"table": table}, kind=TensorProto.INT64),
        (20_000,),
    )
    assert every.least_bytes == 20_000 * 8 + 10_000 * 64 + 20_000 * 64


def test_a_view_moves_nothing(tmp_path: Path) -> None:
    nodes = [
        node("Reshape", ["x", "flat"], ["t"]),
        node("Relu", ["t"], ["y"]),
    ]
    work = count(tmp_path, model(nodes, stored={"flat": np.array([-1])}))
    assert work.unfused_bytes == 256
    assert work.least_bytes == 256 + 8


@pytest.mark.parametrize(
    ("kind", "bits"), [("INT8", 8), ("BFLOAT16", 16), ("UINT4", 4), ("BOOL", 8)]
)
def test_elements_have_the_size_of_their_type(tmp_path: Path, kind: str, bits: int) -> None:
    cast = [node("Cast", ["x"], ["y"], to=FLOAT)]
    made = model(cast, stored={}, kind=TensorProto.DataType.Value(kind))
    made.opset_import[0].version = 21
    assert count(tmp_path, made).least_bytes == 32 * bits // 8 + 128


def test_asking_for_a_shape_reads_no_element(tmp_path: Path) -> None:
    nodes = [node("Shape", ["x"], ["s"]), node("Cast", ["s"], ["y"], to=FLOAT)]
    work = count(tmp_path, model(nodes, stored={}), (1000, 4))
    assert (work.least_bytes, work.unfused_bytes) == (2 * 4, 2 * 8 + 2 * 8 + 2 * 4)


def test_shapes_are_followed_through_shape_arithmetic(tmp_path: Path) -> None:
    """The shape of a Reshape that the graph itself computes from its input."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "zero"], ["batch"]),
        node("Concat", ["batch", "rest"], ["flat"], axis=0),
        node("Reshape", ["x", "flat"], ["t"]),
        node("MatMul", ["t", "w"], ["y"]),
    ]
    stored = {"zero": np.array([0]), "rest": np.array([-1]), "w": np.ones((12, 5), np.float32)}
    work = count(tmp_path, model(nodes, x=("batch", 3, "k"), stored=stored), (7, 3, 4))
    assert (work.matrix_operations, work.lower_bound) == (2 * 7 * 12 * 5, False)


def test_shapes_are_followed_through_a_reshape_of_an_extent(tmp_path: Path) -> None:
    """As torch's exporter writes it: the batch as a number, which becomes a vector."""
    nodes = [
        node("Shape", ["x"], ["n"], start=0, end=1),
        node("Squeeze", ["n"], ["scalar"]),
        node("Reshape", ["scalar", "minus"], ["again"]),
        node("Concat", ["again", "rest"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"], ["r"]),
        node("MatMul", ["r", "w"], ["y"]),
    ]
    stored = {
        "minus": np.array([-1]), "rest": np.array([2, 8]), "w": np.zeros((8, 3), np.float32),
    }  # fmt: skip
    work = count(tmp_path, model(nodes, x=("batch", 16), stored=stored), (5, 16))
    assert (work.matrix_operations, work.lower_bound) == (2 * 5 * 2 * 8 * 3, False)


def test_external_data_is_not_read_but_for_shapes(tmp_path: Path) -> None:
    """The weights' file can be cut off behind its first bytes, which hold the shape."""
    nodes = [node("Reshape", ["x", "flat"], ["t"]), node("MatMul", ["t", "w"], ["y"])]
    stored = {"flat": np.array([-1, 64]), "w": np.ones((64, 100), np.float32)}
    made = model(nodes, x=("batch", 8, 8), stored=stored)
    whole = count(tmp_path, made, (3, 8, 8))
    path = tmp_path / "far.onnx"
    onnx.save(made, path, save_as_external_data=True, location="far.bin", size_threshold=0)
    content = (tmp_path / "far.bin").read_bytes()
    (tmp_path / "far.bin").write_bytes(content[:16])
    assert count_work(path, {"x": (3, 8, 8)}) == whole
    assert whole.matrix_operations == 2 * 3 * 64 * 100
    (tmp_path / "far.bin").unlink()
    with pytest.raises(SourceError, match=r"far\.onnx"):
        count_work(path, {"x": (3, 8, 8)})


def test_a_model_of_more_than_two_gigabytes(tmp_path: Path) -> None:
    """Three weights of 1 GB each, in a file that is all hole."""
    extent = 16_384
    nodes = [node("MatMul", [f"x{i or ''}", f"w{i}"], [f"x{i + 1}"]) for i in range(3)]
    made = model([*nodes, node("Relu", ["x3"], ["y"])], x=("batch", extent), stored={})
    for index in range(3):
        tensor = made.graph.initializer.add(
            name=f"w{index}", data_type=FLOAT, dims=(extent, extent),
            data_location=TensorProto.EXTERNAL,
        )  # fmt: skip
        tensor.external_data.add(key="location", value="hole.bin")
    with (tmp_path / "hole.bin").open("wb") as stream:
        stream.truncate(4 * extent * extent)
    work = count(tmp_path, made, (2, extent))
    assert work.matrix_operations == 3 * 2 * 2 * extent**2
    assert work.least_bytes == 3 * 4 * extent**2 + 2 * (2 * 4 * extent)


def test_local_functions_are_counted_inside(tmp_path: Path) -> None:
    body = [node("MatMul", ["a", "b"], ["c"]), node("Relu", ["c"], ["d"])]
    opsets = [helper.make_opsetid("", 20)]
    made = model([node("Layer", ["x", "w"], ["y"], domain="my.own")])
    made.functions.append(helper.make_function("my.own", "Layer", ["a", "b"], ["d"], body, opsets))
    assert count(tmp_path, made) == count(tmp_path, model(MATMUL_RELU))


def test_shapes_left_over_from_another_batch_are_not_believed(tmp_path: Path) -> None:
    stale = model(MATMUL_RELU, said={"t": (1, 4)}, y=(1, 4))
    assert count(tmp_path, stale) == count(tmp_path, model(MATMUL_RELU))


OWN = [
    node("Own", ["x"], ["t"], domain="my.own"),
    node("MatMul", ["t", "w"], ["y"]),
]


def test_shapes_that_the_file_states_help_where_nothing_can_be_inferred(tmp_path: Path) -> None:
    work = count(tmp_path, model(OWN, said={"t": ("batch", 4)}))
    assert (work.matrix_operations, work.uncounted) == (2 * 8 * 16, {"my.own.Own": 1})
    assert work.unfused_bytes == 256 + (256 + 64)
    assert work.lower_bound


def test_a_product_of_unknown_shape_leaves_no_total(tmp_path: Path) -> None:
    work = count(tmp_path, model(OWN))
    assert work.matrix_operations is None
    assert work.uncounted == {"MatMul": 1, "my.own.Own": 1}
    assert work.least_bytes == 128 + 64  # the output's shape is unknown too


def test_an_unknown_operator_is_named_and_makes_a_lower_bound(tmp_path: Path) -> None:
    nodes = [*MATMUL_RELU, node("Own", ["t"], ["z"], domain="my.own")]
    work = count(tmp_path, model(nodes, outputs=("y", "z")))
    assert (work.matrix_operations, work.uncounted) == (256, {"my.own.Own": 1})


@pytest.mark.parametrize("name", ["OwnConv", "QuickGemm", "FlashAttention", "MatMulNBits"])
def test_an_unknown_operator_that_is_named_like_a_product_leaves_no_total(
    tmp_path: Path, name: str
) -> None:
    nodes = [*MATMUL_RELU, node(name, ["t"], ["z"], domain="my.own")]
    work = count(tmp_path, model(nodes, outputs=("y", "z")))
    assert (work.matrix_operations, work.uncounted) == (None, {f"my.own.{name}": 1})


def test_a_standard_name_in_a_foreign_domain_is_foreign(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["y"], domain="my.own")]
    work = count(tmp_path, model(nodes, y=("batch", 4)))
    assert work.uncounted == {"my.own.Relu": 1}
    assert work.least_bytes == work.unfused_bytes == 256


@pytest.mark.parametrize(
    ("inner", "expected"),
    [(node("Relu", ["t"], ["out"]), 256), (node("MatMul", ["t", "w"], ["out"]), None)],
    ids=["relu", "matmul"],
)
def test_a_branch_is_not_counted(
    tmp_path: Path, inner: onnx.NodeProto, expected: int | None
) -> None:
    body = helper.make_graph([inner], "b", [], [value("out", FLOAT, None)])
    branch = node("If", ["yes"], ["y"], then_branch=body, else_branch=body)
    nodes = [MATMUL_RELU[0], node("ReduceMax", ["x"], ["m"], keepdims=0)]
    nodes += [node("Greater", ["m", "zero"], ["yes"]), branch]
    work = count(tmp_path, model(nodes, stored={"w": W, "zero": np.float32(0)}))
    assert (work.matrix_operations, work.uncounted) == (expected, {"If": 1})


def test_an_output_whose_extent_only_the_values_decide(tmp_path: Path) -> None:
    nodes = [node("NonZero", ["x"], ["i"]), node("Cast", ["i"], ["y"], to=FLOAT)]
    work = count(tmp_path, model(nodes, stored={}))
    assert work.uncounted == {"Cast": 1, "NonZero": 1}
    assert work.least_bytes == 128


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({}, r"expected those of the inputs \['x'\]"),
        ({"x": (8, 4), "z": (1,)}, "expected those of the inputs"),
        ({"x": (8,)}, r"Got shape \[8\] for input 'x', expected \['batch', 4\]"),
        ({"x": (8, 5)}, r"Got shape \[8, 5\]"),
    ],
)
def test_shapes_that_do_not_fit(tmp_path: Path, shapes: Shapes, says: str) -> None:
    onnx.save(model(MATMUL_RELU), tmp_path / "model.onnx")
    with pytest.raises(UsageError, match=says):
        count_work(tmp_path / "model.onnx", shapes)


def test_one_axis_has_one_extent(tmp_path: Path) -> None:
    onnx.save(model([node("Relu", ["x"], ["y"])], x=("n", "n")), tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="same extent"):
        count_work(tmp_path / "model.onnx", {"x": (2, 3)})


def test_a_graph_whose_shapes_cannot_be_inferred_is_a_source_error(tmp_path: Path) -> None:
    made = model(OWN)
    del made.opset_import[1]
    onnx.save(made, tmp_path / "model.onnx")
    with pytest.raises(SourceError, match="could not be inferred"):
        count_work(tmp_path / "model.onnx", {"x": (8, 4)})


def test_work_survives_json() -> None:
    work = Work(
        matrix_operations=None,
        other_operations=1,
        least_bytes=2,
        unfused_bytes=3,
        uncounted={"If": 4},
    )
    assert decode(encode(work), Work, "a test") == work

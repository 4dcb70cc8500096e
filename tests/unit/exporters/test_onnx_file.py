"""Reading ONNX files of any make: signature, constants, and who reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.onnx.reader import load_model, read_precision, read_signature, stored_tensors
from exporters.proof.weight_parity import compare
from toolkit.core.errors import SourceError
from toolkit.core.specs import TensorSpec

A = np.array([1, 2], np.float32)
B = np.array([3, 4], np.float32)
X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
ADD_A = helper.make_node("Add", ["x", "a"], ["y"])


def model(
    nodes: Sequence[onnx.NodeProto] = (ADD_A,),
    weights: dict[str, np.ndarray] | None = None,
    *,
    inputs: Sequence[onnx.ValueInfoProto] = (X,),
    outputs: Sequence[onnx.ValueInfoProto] = (Y,),
) -> onnx.ModelProto:
    arrays = {"a": A} if weights is None else weights
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, initializers))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def readers(path: Path, model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    onnx.save(model, path)
    return {tensor.name: tensor.readers for tensor in stored_tensors(path)}


def test_signature_is_what_the_file_declares(path: Path):
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", None])
    nodes = [ADD_A, helper.make_node("Identity", ["ids"], ["same"])]
    same = helper.make_tensor_value_info("same", TensorProto.INT64, ["batch", None])
    onnx.save(model(nodes, inputs=[X, ids], outputs=[Y, same]), path)
    signature = read_signature(path)
    assert signature.inputs == (
        TensorSpec(name="x", dtype="float32", shape=("batch", 2)),
        TensorSpec(name="ids", dtype="int64", shape=("batch", None)),
    )
    assert [spec.name for spec in signature.outputs] == ["y", "same"]


def test_initializer_that_is_declared_as_an_input_is_none(path: Path):
    a = helper.make_tensor_value_info("a", TensorProto.FLOAT, [2])
    onnx.save(model(inputs=[X, a]), path)
    assert [spec.name for spec in read_signature(path).inputs] == ["x"]


def test_input_that_is_no_tensor_is_refused_by_name(path: Path):
    xs = helper.make_tensor_sequence_value_info("xs", TensorProto.FLOAT, None)
    onnx.save(model(inputs=[X, xs]), path)
    with pytest.raises(SourceError, match="'xs' of unknown type or rank"):
        read_signature(path)


QUANTIZE = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
RESIZE = helper.make_node("Resize", ["y", "", "scales"], ["z"])
HALF_CONSTANT = helper.make_node(
    "Constant", [], ["a"], value=numpy_helper.from_array(A.astype(np.float16))
)
LISTED = helper.make_node("Constant", [], ["a"], value_floats=[1.0, 2.0])


@pytest.mark.parametrize(
    ("made", "precision"),
    [
        (model(), "float32"),
        (model(weights={"a": A.astype(np.float16)}), "float16"),
        (model(weights={"a": A, "b": B.astype(np.float16)}), "mixed"),
        (model(weights={"a": A.astype(np.float16), "one": A[:1]}), "float16"),
        (model([ADD_A, RESIZE], weights={"a": A.astype(np.float16), "scales": B}), "float16"),
        (model([HALF_CONSTANT, ADD_A], weights={}), "float16"),
        (model([LISTED, ADD_A], weights={"b": B.astype(np.float16)}), "mixed"),
        (model([helper.make_node("Relu", ["x"], ["y"])], weights={}), "float32"),
        (model([ADD_A, QUANTIZE]), "int8"),
        (model(weights={"a": A, "unused": A.astype(np.int8)}), "float32"),
    ],
)
def test_precision_is_that_of_what_is_stored_or_eight_bits(
    path: Path, made: onnx.ModelProto, precision: str
) -> None:
    onnx.save(made, path)
    assert read_precision(path) == precision


def test_initializers_and_constants_are_found_with_their_readers(path: Path):
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(B)),
        helper.make_node("Add", ["x", "a"], ["t"], name="first"),
        helper.make_node("Mul", ["t", "c"], ["u"]),
        helper.make_node("Sub", ["u", "a"], ["y"], name="last"),
    ]
    onnx.save(model(nodes), path)
    a, c = stored_tensors(path)
    assert np.array_equal(a.array, A)
    assert np.array_equal(c.array, B)
    assert sorted(a.readers) == ["first (Add)", "last (Sub)"]
    assert c.readers == ("u (Mul)",)


def test_reader_that_no_output_depends_on_does_not_count(path: Path):
    nodes = [
        ADD_A,
        helper.make_node("Add", ["x", "b"], ["dead"]),
        helper.make_node("Relu", ["dead"], ["deader"]),
    ]
    assert readers(path, model(nodes, {"a": A, "b": B})) == {"a": ("y (Add)",), "b": ()}


def test_constant_behind_other_nodes_is_live(path: Path):
    nodes = [
        helper.make_node("Identity", ["a"], ["t"]),
        helper.make_node("Add", ["x", "t"], ["y"]),
    ]
    assert readers(path, model(nodes)) == {"a": ("t (Identity)",)}


def test_omitted_optional_input_reads_nothing(path: Path):
    nodes = [helper.make_node("Clip", ["x", "", "a"], ["y"])]
    assert readers(path, model(nodes, {"a": np.float32(1)})) == {"a": ("y (Clip)",)}


@pytest.mark.parametrize("dtype", [TensorProto.INT4, TensorProto.UINT4])
def test_values_of_four_bits_are_read_two_to_a_byte(path: Path, dtype: int):
    weight = helper.make_tensor("w", dtype, [5], [1, 2, 3, 4, 5])
    scale = numpy_helper.from_array(np.float32(0.5), "s")
    node = helper.make_node("DequantizeLinear", ["w", "s"], ["y"])
    onnx.save(
        helper.make_model(helper.make_graph([node], "g", [], [Y], [packed(weight), scale])), path
    )
    stored = {tensor.name: tensor.array for tensor in stored_tensors(path)}
    assert stored["w"].astype(int).tolist() == [1, 2, 3, 4, 5]


def packed(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """The same tensor with its values as raw bytes."""
    return numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name)


def test_external_data_is_read_and_missed(path: Path):
    onnx.save(model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert compare({"a": A}, stored_tensors(path)).passed
    (path.parent / "weights.bin").unlink()
    with pytest.raises(SourceError, match=r"'weights.bin', which is missing"):
        load_model(path)


def damaged() -> dict[str, bytes]:
    data = model().SerializeToString()
    return {
        "empty": b"",
        "text": b"this is a text file\n",
        "cut": data[: len(data) // 2],
        "binary": bytes(range(256)),
        "no graph": onnx.ModelProto(ir_version=8).SerializeToString(),
    }


@pytest.mark.parametrize("data", damaged().values(), ids=damaged().keys())
def test_what_is_no_model_is_a_source_error(path: Path, data: bytes):
    path.write_bytes(data)
    for read in (load_model, read_signature, stored_tensors):
        with pytest.raises(SourceError) as caught:
            read(path)
        assert str(path) in caught.value.problem


@pytest.mark.parametrize("place", ["nowhere.onnx", "."])
def test_path_that_cannot_be_read_is_a_source_error(tmp_path: Path, place: str):
    with pytest.raises(SourceError, match="could not be read as ONNX"):
        load_model(tmp_path / place)


def blended(weight: str, *nodes: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Nodes that add another tensor to weight `a` before it is used."""
    return [
        *nodes,
        helper.make_node("Add", ["a", weight], ["t"]),
        helper.make_node("Add", ["x", "t"], ["y"]),
    ]


def test_tensor_blended_into_a_weight_fails_the_proof(path: Path):
    onnx.save(model(blended("b"), {"a": A, "b": B}), path)
    assert not compare({"a": A}, stored_tensors(path)).passed


def test_list_constant_blended_into_a_weight_fails_the_proof(path: Path):
    constant = helper.make_node("Constant", [], ["b"], value_floats=[3.0, 4.0])
    onnx.save(model(blended("b", constant)), path)
    assert not compare({"a": A}, stored_tensors(path)).passed


def test_sparse_tensor_blended_into_a_weight_fails_the_proof(path: Path):
    proto = model(blended("b"))
    values = numpy_helper.from_array(B, "b")
    indices = numpy_helper.from_array(np.array([0, 1]), "b_indices")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2]))
    onnx.save(proto, path)
    assert not compare({"a": A}, stored_tensors(path)).passed


def test_integers_cast_and_blended_into_a_weight_fail_the_proof(path: Path):
    cast = helper.make_node("Cast", ["k"], ["b"], to=TensorProto.FLOAT)
    onnx.save(model(blended("b", cast), {"a": A, "k": np.array([3, 4], np.int8)}), path)
    assert not compare({"a": A}, stored_tensors(path)).passed


def test_weight_read_in_a_branch_has_a_reader(path: Path):
    branches = {}
    for name in ("then_branch", "else_branch"):
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2])
        node = helper.make_node("Add", ["x", "a"], [name])
        branches[name] = helper.make_graph([node], name, [], [out])
    nodes = [helper.make_node("If", ["condition"], ["y"], **branches)]
    assert readers(path, model(nodes, {"a": A, "condition": np.array(True)}))["a"]


def test_input_of_unknown_rank_is_not_a_scalar(path: Path):
    onnx.save(model(inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, None)]), path)
    try:
        shape = read_signature(path).inputs[0].shape
    except SourceError:
        shape = None
    assert shape != ()


def test_input_of_undefined_type_is_a_source_error(path: Path):
    value = helper.make_tensor_value_info("x", TensorProto.UNDEFINED, ["batch", 2])
    onnx.save(model(inputs=[value]), path)
    with pytest.raises(SourceError):
        read_signature(path)

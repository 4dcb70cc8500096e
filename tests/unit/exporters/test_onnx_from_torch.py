"""A real LeNet through the exporter; then the file is tampered with, and the proof must tell."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from exporters.base import Exported, ExportOptions
from exporters.onnx.from_torch import OnnxFromTorch
from exporters.onnx.reader import read_signature, stored_tensors
from exporters.proof.weight_parity import Match, WeightParity, compare
from models import FAMILIES, build
from models.torch.base import restored
from toolkit.core.artifact import Checkpoint, Format

WEIGHT, BIAS = "conv1.weight", "fc1.bias"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    spec = FAMILIES.create("lenet").spec("torch")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = build(spec, "torch").state_dict()
    return Checkpoint.save(
        tmp_path_factory.mktemp("lenet"),
        spec=spec,
        weights={name: tensor.numpy() for name, tensor in state.items()},
        seed=3,
        epoch=0,
        metrics={},
        training={},
    )


@pytest.fixture(scope="session")
def exported(
    checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> dict[Path, Exported]:
    """Two exports of the one checkpoint, in places of their own."""
    places = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    return {
        place: OnnxFromTorch().export(checkpoint.artifact(), place, ExportOptions())
        for place in places
    }


@pytest.fixture(scope="session")
def exports(exported: dict[Path, Exported]) -> list[Path]:
    return [place / export.entry for place, export in exported.items()]


@pytest.fixture(scope="session")
def weights(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    return checkpoint.weights()


@pytest.fixture
def proto(exports: list[Path]) -> onnx.ModelProto:
    return onnx.load(exports[0])


@pytest.fixture
def prove(tmp_path: Path, weights: dict[str, np.ndarray]) -> Callable[..., WeightParity]:
    def prove(proto: onnx.ModelProto) -> WeightParity:
        onnx.save(proto, tmp_path / "altered.onnx")
        return compare(weights, stored_tensors(tmp_path / "altered.onnx"))

    return prove


def failures(parity: WeightParity) -> dict[str, Match]:
    return {tensor.name: tensor.match for tensor in parity.failures()}


def initializer(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in proto.graph.initializer if tensor.name == name)


def rewire(proto: onnx.ModelProto, old: str, new: str) -> None:
    for node in proto.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def test_every_weight_is_in_the_file_bit_for_bit(exports: list[Path], weights):
    parity = compare(weights, stored_tensors(exports[0]))
    assert parity.passed
    assert (parity.explained, parity.total) == (10, 10)
    assert all(tensor.readers for tensor in parity.tensors)
    assert all(tensor.stored_as == tensor.name for tensor in parity.tensors)


def test_two_exports_are_byte_identical(exports: list[Path]):
    first, second = (path.read_bytes() for path in exports)
    assert first == second


def test_one_file_and_nothing_beside_it(exports: list[Path]):
    assert [path.name for path in exports[0].parent.iterdir()] == ["model.onnx"]


def test_no_path_of_this_machine_is_in_the_file(proto: onnx.ModelProto):
    for tensor in proto.graph.initializer:
        tensor.raw_data = b""
    text = proto.SerializeToString()
    places = (sys.prefix, str(Path(torch.__file__).parent), str(Path(__file__).parents[3]))
    assert not [place for place in places if place.encode() in text]
    assert not re.findall(rb"\.py\b|/\w+/", text)


def test_names_and_batch_are_those_of_the_model(exports: list[Path], checkpoint: Checkpoint):
    signature, expected = read_signature(exports[0]), checkpoint.spec.signature
    for got, want in zip(
        (*signature.inputs, *signature.outputs), (*expected.inputs, *expected.outputs), strict=True
    ):
        assert (got.name, got.dtype, got.shape) == (want.name, want.dtype, want.shape)


@pytest.mark.parametrize("batch", [1, 3])
def test_file_computes_what_the_model_computes(exports, checkpoint, weights, batch: int):
    images = np.random.default_rng(batch).standard_normal((batch, 3, 32, 32), np.float32)
    (got,) = ReferenceEvaluator(str(exports[0])).run(None, {"input": images})
    with torch.inference_mode():
        expected = restored(checkpoint.spec, weights)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_file_is_a_valid_model(proto: onnx.ModelProto):
    onnx.checker.check_model(proto, full_check=True)


def test_exporter_says_what_it_made(exported: dict[Path, Exported], proto: onnx.ModelProto):
    (opset,) = (entry.version for entry in proto.opset_import if entry.domain == "")
    options = {"exporter": "torch-dynamo", "opset": opset}
    assert set(map(repr, exported.values())) == {
        repr(Exported(entry="model.onnx", precision="float32", options=options))
    }
    assert (OnnxFromTorch.route.format, OnnxFromTorch.route.framework) == (Format.ONNX, "torch")


@pytest.mark.parametrize("name", [WEIGHT, BIAS])
@pytest.mark.parametrize("bit", [0, 31, -1])
def test_one_flipped_bit_is_altered(proto, prove, name: str, bit: int):
    data = bytearray(initializer(proto, name).raw_data)
    data[bit // 8] ^= 1 << bit % 8
    initializer(proto, name).raw_data = bytes(data)
    parity = prove(proto)
    assert failures(parity) == {name: Match.ALTERED}
    assert (parity.explained, parity.total) == (9, 10)


def test_weight_without_a_reader_is_unused(proto, prove):
    (gemm,) = (node for node in proto.graph.node if BIAS in node.input)
    gemm.input.remove(BIAS)
    assert failures(prove(proto)) == {BIAS: Match.UNUSED}


def test_weight_that_only_a_dead_node_reads_is_unused(proto, prove):
    (gemm,) = (node for node in proto.graph.node if BIAS in node.input)
    gemm.input.remove(BIAS)
    proto.graph.node.append(onnx.helper.make_node("Relu", [BIAS], ["dead"]))
    assert failures(prove(proto)) == {BIAS: Match.UNUSED}


def test_weight_that_is_gone_is_missing(proto, prove):
    proto.graph.initializer.remove(initializer(proto, WEIGHT))
    assert failures(prove(proto)) == {WEIGHT: Match.MISSING}


def test_another_tensor_in_its_place_is_missing_and_extra(proto, prove):
    tensor = initializer(proto, WEIGHT)
    other = numpy_helper.to_array(tensor) * 2
    tensor.CopyFrom(numpy_helper.from_array(other, "other"))
    rewire(proto, WEIGHT, "other")
    assert failures(prove(proto)) == {WEIGHT: Match.MISSING, "other": Match.EXTRA}


def test_renamed_initializer_is_found_by_its_value(proto, prove):
    initializer(proto, WEIGHT).name = "renamed"
    rewire(proto, WEIGHT, "renamed")
    parity = prove(proto)
    assert parity.passed
    assert {t.name: t.stored_as for t in parity.tensors}[WEIGHT] == "renamed"


def test_initializer_as_a_constant_node_is_found(proto, prove):
    tensor = initializer(proto, WEIGHT)
    node = onnx.helper.make_node("Constant", [], ["constant"], value=tensor)
    proto.graph.initializer.remove(tensor)
    proto.graph.node.insert(0, node)
    rewire(proto, WEIGHT, "constant")
    parity = prove(proto)
    assert parity.passed
    assert {t.name: t.stored_as for t in parity.tensors}[WEIGHT] == "constant"


def test_transposed_weight_is_said_to_be(proto, prove):
    tensor = initializer(proto, "fc2.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).T, tensor.name))
    parity = prove(proto)
    assert parity.passed
    (found,) = (t for t in parity.tensors if t.name == "fc2.weight")
    assert (found.match, found.how, found.error) == (Match.TRANSPOSED, "axes [1, 0]", 0.0)

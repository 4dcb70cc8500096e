"""Every family in every precision through TensorRT's parser and builder, for compute capability 8.9
and any batch: TensorRT-RTX builds without a GPU. What comes of it on one is not shown here."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from exporters.base import ExportOptions
from exporters.onnx.from_torch import OnnxFromTorch
from exporters.passes.rewriting import apply
from models import FAMILIES
from tests.conformance.test_exporters import checkpoint_of
from toolkit.core.artifact import Artifact
from toolkit.core.engines import ENGINE, EngineRecord
from toolkit.core.errors import SourceError
from toolkit.core.specs import TensorSpec
from toolkit.sources.resolve import open_artifact

pytest.importorskip("tensorrt_rtx")
from exporters.tensorrt.network import parse
from exporters.tensorrt.rtx import LIBRARY, TensorRtRtx

ADA = ExportOptions(compute_capabilities=(89,), batches=(1, 8, 64))
LEFT_OUT = {
    "resnet32": "has the operators of resnet20, and takes longer",
}
PRECISIONS = {"float32": "FLOAT", "float16": "HALF", "int8": "FLOAT"}
PRODUCTS = ("CONVOLUTION", "MATRIX_MULTIPLY")


class RandomRows(CalibrationDataReader):
    def __init__(self, spec: TensorSpec) -> None:
        rng = np.random.default_rng(0)
        rows = rng.standard_normal((4, *spec.shape[1:])).astype(np.float32)
        self._feeds = iter([{spec.name: rows}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def quantise(path: Path, spec: TensorSpec) -> None:
    """With scales of weights and activations around zero, which is what TensorRT takes."""
    quantize_static(
        path,
        path,
        RandomRows(spec),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
        },
    )


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """The directory of a family's ONNX graph, exported once."""

    @functools.cache
    def made(family: str) -> Path:
        place = tmp_path_factory.mktemp(family)
        (place / "checkpoint").mkdir()
        (place / "onnx").mkdir()
        source = checkpoint_of(family, place / "checkpoint").artifact()
        done = OnnxFromTorch().export(source, place / "onnx", ExportOptions())
        assert done.entry == "model.onnx"
        return place / "onnx"

    onnxruntime.set_default_logger_severity(3)  # of initializers that are not used
    yield made
    onnxruntime.set_default_logger_severity(2)


def in_precision(graph: Path, place: Path, precision: str) -> Artifact:
    shutil.copytree(graph, place)
    path = place / "model.onnx"
    if precision == "float16":
        apply([precision], path)
    elif precision == "int8":
        quantise(path, open_artifact(path).signature.inputs[0])
    return open_artifact(path)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", sorted(set(FAMILIES.names()) - set(LEFT_OUT)))
def test_every_family_is_built(
    family: str, precision: str, graph: Callable[[str], Path], tmp_path: Path
) -> None:
    source = in_precision(graph(family), tmp_path / "onnx", precision)
    parsed = parse(LIBRARY, source.path)
    products = [layer for layer in parsed.layers() if layer.type.name in PRODUCTS]
    assert products
    assert {layer.get_input(0).dtype.name for layer in products} == {PRECISIONS[precision]}
    types = {layer.type.name for layer in parsed.layers()}
    assert ({"QUANTIZE", "DEQUANTIZE"} <= types) is (precision == "int8")
    out = tmp_path / "engine"
    out.mkdir()
    done = TensorRtRtx().export(source, out, ADA)
    assert done.precision == precision
    assert (out / ENGINE).read_bytes().startswith(b"vtrt")
    record = EngineRecord.load(out)
    assert (record.batches, record.compute_capabilities) == ((1, 8, 64), (89,))


@pytest.mark.parametrize("operator", ["StringNormalizer", "Unique"])
def test_an_operator_that_is_not_taken_is_named_with_its_node(
    operator: str, tmp_path: Path
) -> None:
    """Of ONNX's own, in the middle of a graph."""
    kind = onnx.TensorProto.STRING if operator == "StringNormalizer" else onnx.TensorProto.FLOAT
    nodes = [
        onnx.helper.make_node("Identity", ["x"], ["a"], name="before"),
        onnx.helper.make_node(operator, ["a"], ["y"], name="culprit"),
    ]
    value = functools.partial(onnx.helper.make_tensor_value_info, elem_type=kind, shape=[None])
    made = onnx.helper.make_graph(nodes, "graph", [value(name="x")], [value(name="y")])
    opsets = [onnx.helper.make_opsetid("", 18)]
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(made, opset_imports=opsets, ir_version=10), path)
    with pytest.raises(SourceError, match=rf"node 'culprit' \({operator}\)"):
        parse(LIBRARY, path)

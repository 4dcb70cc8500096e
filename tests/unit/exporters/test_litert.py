"""LiteRT files that no exporter here writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from exporters.litert import IDENTIFIER, LiteRtTensors
from toolkit.core.errors import SourceError


def dense(size: int) -> Any:
    found = schema.DimensionMetadataT()
    found.format, found.denseSize = schema.DimensionType.DENSE, size
    return found


def sparse(segments: list[int], indices: list[int]) -> Any:
    found = schema.DimensionMetadataT()
    found.format = schema.DimensionType.SPARSE_CSR
    found.arraySegmentsType = found.arrayIndicesType = schema.SparseIndexVector.Int32Vector
    found.arraySegments, found.arrayIndices = schema.Int32VectorT(), schema.Int32VectorT()
    found.arraySegments.values, found.arrayIndices.values = segments, indices
    return found


def write(path: Path, values: np.ndarray, levels: list[Any], blocks: list[int] | None) -> Path:
    """A file with one sparse tensor of shape [4, 4]."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    tensor = schema.TensorT()
    tensor.shape, tensor.type, tensor.buffer = [4, 4], schema.TensorType.FLOAT16, 1
    tensor.name, tensor.sparsity = b"kernel", schema.SparsityParametersT()
    tensor.sparsity.traversalOrder = list(range(len(levels)))
    tensor.sparsity.dimMetadata, tensor.sparsity.blockMap = levels, blocks
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [tensor], [], [], []
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], []
    model.buffers = [schema.BufferT(), buffer]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    path.write_bytes(builder.Output())
    return path


@pytest.mark.parametrize(
    ("levels", "blocks", "expected"),
    [
        (
            [dense(4), sparse([0, 2, 2, 5, 8], [0, 3, 1, 2, 3, 0, 1, 2])],
            None,
            [[1, 0, 0, 2], [0, 0, 0, 0], [0, 3, 4, 5], [6, 7, 8, 0]],
        ),
        (
            [dense(2), sparse([0, 1, 2], [1, 0]), dense(2), dense(2)],
            [0, 1],
            [[0, 0, 1, 2], [0, 0, 3, 4], [5, 6, 0, 0], [7, 8, 0, 0]],
        ),
    ],
    ids=["rows", "blocks"],
)
def test_a_sparse_tensor_is_read_in_its_shape(
    tmp_path: Path, levels: list[Any], blocks: list[int] | None, expected: list[list[int]]
) -> None:
    values = np.arange(1, 9, dtype=np.float16)
    path = write(tmp_path / "sparse.tflite", values, levels, blocks)
    (stored,) = LiteRtTensors().stored_tensors(path)
    np.testing.assert_array_equal(stored.array, np.array(expected, np.float16))


@pytest.mark.parametrize("indices", [[0, 4], [0, -1], [0]], ids=["beyond", "negative", "few"])
def test_a_damaged_sparse_tensor_is_refused(tmp_path: Path, indices: list[int]) -> None:
    levels = [dense(4), sparse([0, 2, 2, 2, 2], indices)]
    path = write(tmp_path / "sparse.tflite", np.ones(2, np.float16), levels, None)
    with pytest.raises(SourceError, match="sparse tensor 'kernel' that cannot be read"):
        LiteRtTensors().stored_tensors(path)

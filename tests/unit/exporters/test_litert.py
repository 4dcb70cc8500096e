"""LiteRT files that no exporter here writes."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporters.litert import IDENTIFIER, LiteRtTensors


def test_a_sparse_tensor_is_read_as_its_stored_values(tmp_path: Path) -> None:
    values = np.array([1.5, -2.0, 3.0], np.float16)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    tensor = schema.TensorT()
    tensor.shape, tensor.type, tensor.buffer = [4, 4], schema.TensorType.FLOAT16, 1
    tensor.name, tensor.sparsity = b"kernel", schema.SparsityParametersT()
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [tensor], [], [], []
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], []
    model.buffers = [schema.BufferT(), buffer]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    path = tmp_path / "sparse.tflite"
    path.write_bytes(builder.Output())
    (stored,) = LiteRtTensors().stored_tensors(path)
    assert stored.name == "kernel"
    np.testing.assert_array_equal(stored.array, values)

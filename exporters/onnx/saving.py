"""Writing of ONNX graphs, with tensors in a separate file if they are too large for one message."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

INLINE_BYTES = 1_900_000_000  # of tensors; a protobuf message holds at most 2 GiB


def message_of(model: ir.Model) -> onnx.ModelProto | None:
    """Return the graph and its tensors as one protobuf message, or None if they are too large.

    The tensors of `model` can then be freed before the file is written.
    """
    return None if _stored_bytes(model) > INLINE_BYTES else ir.to_proto(model)


def save_graph(model: ir.Model, path: Path, *, beside: str | None = None) -> None:
    """Write a graph, with its tensors in the same file, or all in the file `beside` if given.

    By default, tensors that are too large for one message are stored in `<name>.data`.
    """
    if beside is None and _stored_bytes(model) > INLINE_BYTES:
        beside = f"{path.name}.data"
    if beside is None:
        ir.external_data.load_to_model(model)  # or it would refer to files beside the source
    ir.save(model, path, external_data=beside)


def _stored_bytes(model: ir.Model) -> int:
    return sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )

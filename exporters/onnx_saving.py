"""Writing ONNX graphs, with what does not fit into one file beside it."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

INLINE_BYTES = 1_900_000_000  # of tensors; a protobuf message ends at 2 GiB


def message_of(model: ir.Model) -> onnx.ModelProto | None:
    """The graph with its tensors as one protobuf message; None if they are too many for one.

    With it, the tensors of `model` can be freed before the file is written.
    """
    return None if _stored_bytes(model) > INLINE_BYTES else ir.to_proto(model)


def save_graph(model: ir.Model, path: Path, *, beside: str | None = None) -> None:
    """Writes a graph. Its tensors lie in the file, or together in `beside`, where that is named or
    they are too many: then it is `<name>.data`."""
    if beside is None and _stored_bytes(model) > INLINE_BYTES:
        beside = f"{path.name}.data"
    if beside is None:
        ir.external_data.load_to_model(model)  # or it would name files beside the source
    ir.save(model, path, external_data=beside)


def _stored_bytes(model: ir.Model) -> int:
    return sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )

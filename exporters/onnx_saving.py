"""Writing ONNX graphs, with what does not fit into one file beside it."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

INLINE_BYTES = 1_900_000_000  # of tensors; a protobuf message ends at 2 GiB


def save_graph(model: ir.Model, path: Path, *, beside: str | None = None) -> None:
    """Writes a graph. Its tensors lie in the file, or together in `beside`, where that is named or
    they are too many: then it is `<name>.data`."""
    stored = sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )
    if beside is None and stored > INLINE_BYTES:
        beside = f"{path.name}.data"
    if beside is None:
        ir.external_data.load_to_model(model)  # or it would name files beside the source
    ir.save(model, path, external_data=beside)

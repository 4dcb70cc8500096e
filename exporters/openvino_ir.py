"""ONNX -> OpenVINO IR: a graph in .xml, its tensors in .bin."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import ml_dtypes
import numpy as np
import openvino as ov
from openvino.op import if_op, loop, tensor_iterator

from exporters import ROUTES
from exporters.base import (
    Description,
    Exported,
    Exporter,
    ExportOptions,
    Route,
    StoredTensor,
    TensorReader,
)
from exporters.onnx.reader import read_precision, reads_graph
from toolkit.core.artifact import Artifact
from toolkit.core.errors import SourceError
from toolkit.core.specs import Signature, TensorSpec

ENTRY = "model.xml"
BATCH = "batch"
HELD = frozenset({"Constant", "Parameter", "Result"})


@final
class OpenVinoIr(Exporter):
    """Exporter that keeps every weight as it is in the ONNX graph.

    `Core.read_model` folds nothing, unlike `openvino.convert_model`, and `save_model` is called
    without its default compression to float16.
    """

    route: ClassVar[Route] = ROUTES["openvino"]

    def export(self, source: Artifact, directory: Path, options: ExportOptions) -> Exported:
        try:
            model = ov.Core().read_model(source.path)
        except (RuntimeError, UnicodeDecodeError) as error:
            raise SourceError(
                f"OpenVINO {ov.__version__} could not convert {source.path}: {error}",
                hint="The message names what it does not support; choose another target.",
            ) from error
        ports = (*model.inputs, *model.outputs)
        specs = (*source.signature.inputs, *source.signature.outputs)
        if len(ports) != len(specs):
            raise SourceError(
                f"OpenVINO {ov.__version__} reads {len(model.inputs)} inputs and "
                f"{len(model.outputs)} outputs in {source.path}, expected {source.signature}.",
                hint="The graph has a duplicate input or output, or none: fix it.",
            )
        for port, spec in zip(ports, specs, strict=True):
            port.get_tensor().set_names({spec.name})
        ov.save_model(model, directory / ENTRY, compress_to_fp16=False)
        return Exported(
            entry=ENTRY,
            precision=read_precision(source.path),
            options={"exporter": "openvino", "openvino": ov.__version__},
        )


COMPUTED = {"Interpolate": 1}
"""Number of inputs before the sizes or scales, for operators that take these in floating point."""


@final
class OpenVinoTensors(TensorReader):
    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        return _stored_tensors(path)

    def operators(self, path: Path) -> Mapping[str, int]:
        return _operators(path)

    def describe(self, path: Path) -> Description:
        return _describe(path)


@reads_graph
def _stored_tensors(path: Path) -> Sequence[StoredTensor]:
    return [
        StoredTensor(
            name=operation.get_friendly_name(),
            array=_array(operation),
            readers=_readers(operation),
        )
        for operation in _operations_of(read_ir(path))
        if operation.get_type_name() == "Constant"
    ]


@reads_graph
def _operators(path: Path) -> Mapping[str, int]:
    kinds = (operation.get_type_name() for operation in _operations_of(read_ir(path)))
    return Counter(kind for kind in kinds if kind not in HELD)


@reads_graph
def _describe(path: Path) -> Description:
    model = read_ir(path)
    floats = {
        operation.get_element_type().to_dtype().name
        for operation in _operations_of(model)
        if operation.get_type_name() == "Constant" and operation.get_element_type().is_real()
    }
    return Description(
        signature=Signature(
            inputs=tuple(_tensor_spec(port, path) for port in model.inputs),
            outputs=tuple(_tensor_spec(port, path) for port in model.outputs),
        ),
        precision=floats.pop() if len(floats) == 1 else "mixed" if floats else "none",
        directory=path.parent,
        entry=path.name,
        files=[path.name, path.with_suffix(".bin").name],
    )


def _tensor_spec(port: Any, path: Path) -> TensorSpec:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        raise SourceError(
            f"{path} has an input or output {port.get_any_name()!r} of unknown rank.",
            hint="Only models whose inputs and outputs are tensors of known rank can be run.",
        )
    return TensorSpec(
        name=port.get_any_name(),
        dtype=port.get_element_type().to_dtype().name,
        shape=tuple(
            (BATCH if axis == 0 else None) if extent.is_dynamic else extent.get_length()
            for axis, extent in enumerate(shape)
        ),
    )


def read_ir(path: Path) -> Any:
    """Read the graph of an .xml file and its .bin. Raises SourceError if it cannot be read."""
    try:
        return ov.Core().read_model(path)
    except (RuntimeError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{path} could not be read as OpenVINO's IR: {error}",
            hint="Give the .xml that `toolkit export --to openvino` wrote.",
        ) from error


def _operations_of(model: Any) -> Iterator[Any]:
    """Yield the operations of a graph in order, each followed by those of its branches or body."""
    for operation in model.get_ordered_ops():
        yield operation
        if isinstance(operation, if_op):
            yield from _operations_of(operation.get_then_body())
            yield from _operations_of(operation.get_else_body())
        elif isinstance(operation, loop | tensor_iterator):
            yield from _operations_of(operation.get_function())


def _array(constant: Any) -> np.ndarray:
    """Return the array of a constant. OpenVINO returns the bits of bfloat16 as float16."""
    array: np.ndarray = constant.get_data().copy()
    is_bfloat16 = constant.get_element_type() == ov.Type.bf16
    return array.view(ml_dtypes.bfloat16) if is_bfloat16 else array


def _readers(constant: Any) -> tuple[str, ...]:
    """Return the operations that compute with a constant. OpenVINO drops unused ones itself."""
    targets = constant.output(0).get_target_inputs()
    readers = (
        target.get_node()
        for target in targets
        if target.get_index() < COMPUTED.get(target.get_node().get_type_name(), math.inf)
    )
    nodes = sorted(readers, key=lambda node: node.get_name())
    return tuple(f"{node.get_friendly_name()} ({node.get_type_name()})" for node in nodes)

"""ONNX's reference evaluator, which runs each operator in NumPy as the standard defines it.

It is slow, but it runs float64 graphs, against which the accuracy of other runtimes is checked.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import (
    ExternalDataInfo,
    load_external_data_for_model,
    load_external_data_for_tensor,
)
from onnx.reference import ReferenceEvaluator

from runtimes.onnxruntime.profile import MOVING
from runtimes.operator_trace import Node, describe, precision_of
from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import SourceError
from toolkit.core.session import (
    Availability,
    Provenance,
    Runtime,
    Session,
    SessionOptions,
    host_copy,
    not_ready,
)
from toolkit.core.specs import Feeds, Outputs

VERSION = importlib.metadata.version("onnx")


@final
class OnnxReference(Runtime):
    name: ClassVar[str] = "onnx-reference"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.ONNX})

    def probe(self) -> Availability:
        return Availability(ok=True, version=VERSION)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        options.require_known(self.name, ())
        return OnnxReferenceSession(artifact, options)


@final
class OnnxReferenceSession(Session):
    def __init__(self, artifact: Artifact, options: SessionOptions) -> None:
        super().__init__(artifact.signature)
        self._threads = options.threads
        try:
            self._evaluator: ReferenceEvaluator | None = _evaluator(artifact.path)
        except (DecodeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            told = str(error).strip().partition("\n")[0].rstrip(".")
            raise SourceError(
                f"onnx {VERSION} could not open {artifact.path}: {told}.",
                hint="Check the file with onnx.checker, or choose another runtime.",
            ) from error
        self._nodes = list(self._evaluator.proto_.graph.node)
        self._feeds: dict[str, Any] = {}
        self._outputs: Any = []
        self._pass: Callable[[], None] = not_ready

    def _prepare(self, dims: Mapping[str, int]) -> None:
        self._pass = self._run  # for any shapes

    def _upload(self, feeds: Feeds) -> None:
        self._feeds = {
            name: np.array(array, object if array.dtype.kind == "U" else None)
            for name, array in feeds.items()
        }

    def forward(self) -> None:
        self._pass()

    def _run(self) -> None:
        assert self._evaluator is not None
        self._outputs = self._evaluator.run(None, self._feeds)

    def synchronize(self) -> None:
        pass  # a pass is complete when the call returns

    def _download(self) -> Outputs:
        specs = self.signature.outputs
        return {s.name: host_copy(a) for s, a in zip(specs, self._outputs, strict=True)}

    def _provenance(self) -> Provenance:
        assert self._evaluator is not None
        values: Any = self._evaluator.run(None, self._feeds, intermediate=True)
        nodes = [
            Node(
                name=node.name or node.output[0],
                operator=node.op_type,
                provider="numpy",
                dtype=None
                if node.op_type in MOVING
                else _float([values[n] for n in node.output if n]),
            )
            for node in self._nodes
        ]
        return Provenance(
            runtime="onnx-reference",
            version=VERSION,
            device="cpu",
            precision=precision_of(nodes),
            threads=self._threads,
            details=describe(nodes),
        )

    def _close(self) -> None:
        self._pass = not_ready
        self._evaluator = None


def _evaluator(path: Path) -> ReferenceEvaluator:
    """Return an evaluator that maps initializers in external files into memory."""
    model = onnx.load(path, load_external_data=False)
    initializers = list(model.graph.initializer)
    del model.graph.initializer[:]
    load_external_data_for_model(model, str(path.parent))
    model.graph.initializer.extend(initializers)

    class Evaluator(ReferenceEvaluator):  # type: ignore[misc, unused-ignore]
        def retrieve_external_data(self, tensor: onnx.TensorProto) -> np.ndarray:
            return _mapped(tensor, path.parent)

    return Evaluator(model)


def _mapped(tensor: onnx.TensorProto, directory: Path) -> np.ndarray:
    """Return the values of a tensor in an external file; writing to them leaves the file as is.

    Only float32 and float64 tensors are mapped (copy-on-write); others are loaded.
    """
    where = ExternalDataInfo(tensor)
    file = (directory / where.location).resolve()
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    shape = tuple(tensor.dims)
    is_inside = file.is_relative_to(directory.resolve()) and file.is_file()
    if dtype not in (np.float32, np.float64) or not math.prod(shape) or not is_inside:
        load_external_data_for_tensor(tensor, str(directory))  # refuses other folders
        return onnx.numpy_helper.to_array(tensor)
    return np.memmap(file, dtype, "c", where.offset or 0, shape)


def _float(values: list[Any]) -> str | None:
    dtypes = [value.dtype.name for value in values if isinstance(value, np.ndarray)]
    return next((dtype for dtype in dtypes if "float" in dtype), None)

"""ONNX's reference evaluator: each operator as the standard defines it, in NumPy.

It is not made for speed, but takes float64, and so tells how exact other runtimes are.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx.reference import ReferenceEvaluator

from runtimes.executed import Node, describe, precision_of
from runtimes.onnxruntime_nodes import MOVING
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
            model = onnx.load(artifact.path)
            self._evaluator: ReferenceEvaluator | None = ReferenceEvaluator(model)
        except (DecodeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            told = str(error).strip().partition("\n")[0].rstrip(".")
            raise SourceError(
                f"onnx {VERSION} could not open {artifact.path}: {told}.",
                hint="Check the file with onnx.checker, or choose another runtime.",
            ) from error
        self._model = model
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
            for node in self._model.graph.node
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


def _float(values: list[Any]) -> str | None:
    dtypes = [value.dtype.name for value in values if isinstance(value, np.ndarray)]
    return next((dtype for dtype in dtypes if "float" in dtype), None)

"""ONNX's reference evaluator: each operator as the standard defines it, in NumPy.

It is not made for speed, but takes float64, and so tells how exact other runtimes are.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any, ClassVar, final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx.reference import ReferenceEvaluator

from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import SourceError
from toolkit.core.session import (
    Availability,
    Provenance,
    Runtime,
    Session,
    SessionOptions,
    host_copy,
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
        self._precision = artifact.precision
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
        self._feeds: dict[str, Any] = {}
        self._outputs: Any = []

    def _prepare(self, dims: Mapping[str, int]) -> None:
        pass  # shapes are those of the arrays

    def _upload(self, feeds: Feeds) -> None:
        self._feeds = {name: np.array(array) for name, array in feeds.items()}

    def forward(self) -> None:
        assert self._evaluator is not None
        self._outputs = self._evaluator.run(None, self._feeds)

    def synchronize(self) -> None:
        pass  # a pass is complete when the call returns

    def _download(self) -> Outputs:
        specs = self.signature.outputs
        return {s.name: host_copy(a) for s, a in zip(specs, self._outputs, strict=True)}

    def _provenance(self) -> Provenance:
        return Provenance(
            runtime="onnx-reference",
            version=VERSION,
            device="cpu",
            precision=self._precision,
            threads=self._threads,
            details={},
        )

    def _close(self) -> None:
        self._evaluator = None

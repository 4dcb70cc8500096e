"""TensorRT for RTX on a GPU, for engines built by `toolkit export --to tensorrt-rtx`."""

from __future__ import annotations

from typing import ClassVar, final

import tensorrt_rtx as trt

from runtimes.tensorrt.session import open_engine, probed
from toolkit.core.artifact import Artifact, Format
from toolkit.core.session import Availability, Runtime, Session, SessionOptions


@final
class TensorRtRtx(Runtime):
    name: ClassVar[str] = "tensorrt-rtx"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.TENSORRT_RTX})
    device: ClassVar[str] = "cuda"

    def probe(self) -> Availability:
        return probed(trt.__version__)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        return open_engine(trt, self.name, artifact, options)

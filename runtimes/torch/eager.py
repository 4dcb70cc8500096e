"""PyTorch on the CPU in eager mode."""

from __future__ import annotations

from typing import ClassVar, final

import torch

from models.torch.program import module_of
from runtimes.torch.float64 import in_asked_dtype
from runtimes.torch.session import TorchSession, dtypes_of
from toolkit.core.artifact import Artifact, Format
from toolkit.core.session import Availability, Runtime, Session, SessionOptions


@final
class TorchEager(Runtime):
    """Runtime for the model's own framework: the parity reference and the latency baseline."""

    name: ClassVar[str] = "torch"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.CHECKPOINT})

    def probe(self) -> Availability:
        return Availability(ok=True, version=torch.__version__)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        module = in_asked_dtype(module_of(artifact), self.name, options)
        return TorchSession(
            artifact.signature,
            module,
            runtime=self.name,
            options=options,
            dtypes=dtypes_of(module),
        )

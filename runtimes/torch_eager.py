"""PyTorch as it is: the module, run operation by operation."""

from __future__ import annotations

from typing import ClassVar, final

import torch

from models.torch.program import module_of
from runtimes.torch_float64 import in_asked_dtype
from runtimes.torch_session import TorchSession, dtypes_of
from toolkit.core.artifact import Artifact, Format
from toolkit.core.session import Availability, Runtime, Session, SessionOptions


@final
class TorchEager(Runtime):
    """The model's own framework: the reference for parity and the baseline for latency."""

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

"""PyTorch for exported programs in eager mode, which needs no code of the model."""

from __future__ import annotations

from typing import ClassVar, final

import torch

from models.torch.program import module_of
from runtimes.torch.float64 import in_asked_dtype
from runtimes.torch.session import TorchSession, dtypes_of
from toolkit.core.artifact import Artifact, Format
from toolkit.core.session import Availability, Runtime, Session, SessionOptions


@final
class TorchExport(Runtime):
    name: ClassVar[str] = "torch-export"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.TORCH_EXPORT})

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

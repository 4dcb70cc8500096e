"""Null runtime, which computes nothing: its measured time is the overhead of the harness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, final

import numpy as np

from toolkit.core.artifact import Artifact, Format
from toolkit.core.session import (
    Availability,
    Provenance,
    Runtime,
    Session,
    SessionOptions,
    not_ready,
)
from toolkit.core.specs import Feeds, Outputs, Signature
from toolkit.core.version import VERSION


@final
class Null(Runtime):
    """Runtime whose outputs are zeros with the right names, shapes and dtypes."""

    name: ClassVar[str] = "null"
    accepts: ClassVar[frozenset[Format]] = frozenset(Format)
    computes: ClassVar[bool] = False

    def probe(self) -> Availability:
        return Availability(ok=True, version=VERSION)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        options.require_known(self.name, ())
        return NullSession(artifact.signature, options)


@final
class NullSession(Session):
    def __init__(self, signature: Signature, options: SessionOptions) -> None:
        super().__init__(signature)
        self._options = options
        self._pass: Callable[[], None] = not_ready

    def _prepare(self, dims: Mapping[str, int]) -> None:
        self._shapes = {s.name: (s.dtype, s.resolve(dims)) for s in self.signature.outputs}
        self._pass = _nothing

    def _upload(self, feeds: Feeds) -> None:
        pass

    def forward(self) -> None:
        self._pass()

    def synchronize(self) -> None:
        pass

    def _download(self) -> Outputs:
        return {
            name: np.zeros([1 if dim is None else dim for dim in shape], dtype)
            for name, (dtype, shape) in self._shapes.items()
        }

    def _provenance(self) -> Provenance:
        return Provenance(
            runtime="null",
            version=VERSION,
            device="cpu",
            precision="none",
            threads=self._options.threads,
        )

    def _close(self) -> None:
        self._pass = not_ready


def _nothing() -> None:
    pass

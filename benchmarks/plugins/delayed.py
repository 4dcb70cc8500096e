"""ONNX Runtime with a busy wait after each pass: a difference that is known, to be found."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, final

from runtimes.onnxruntime.cpu import OnnxRuntime
from toolkit.core.artifact import Artifact, Format
from toolkit.core.session import (
    Availability,
    Provenance,
    Runtime,
    Session,
    SessionOptions,
    parse_value,
)
from toolkit.core.specs import Feeds, Outputs


class Delayed(Runtime):
    """Option `share`: the wait as a share of the pass that it follows, so that it stays true
    whatever the machine does."""

    name: ClassVar[str] = "delayed"
    accepts: ClassVar[frozenset[Format]] = OnnxRuntime.accepts

    def probe(self) -> Availability:
        return OnnxRuntime().probe()

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        options.require_known(self.name, ("share",))
        share = parse_value("share", options.tuning["share"], float)
        return DelayedSession(OnnxRuntime().open(artifact, replace(options, tuning={})), share)


@final
class DelayedSession(Session):
    def __init__(self, inner: Session, share: float) -> None:
        super().__init__(inner.signature)
        self._inner = inner
        self._share = share

    def _prepare(self, dims: Mapping[str, int]) -> None:
        pass

    def _upload(self, feeds: Feeds) -> None:
        self._inner.upload(feeds)

    def forward(self) -> None:
        began = time.perf_counter_ns()
        self._inner.forward()
        self._inner.synchronize()
        now = time.perf_counter_ns()
        until = now + int((now - began) * self._share)
        while now < until:
            now = time.perf_counter_ns()

    def synchronize(self) -> None:
        pass

    def _download(self) -> Outputs:
        return self._inner.download()

    def _provenance(self) -> Provenance:
        return self._inner.provenance()

    def _close(self) -> None:
        self._inner.close()


@final
class DelayedByThree(Delayed):
    """The same with a wait of another share, to be measured beside it."""

    name: ClassVar[str] = "delayed-3"

"""Runtimes and a pass of a third party, installed for real: a distribution with entry points."""

from __future__ import annotations

import os
from pathlib import Path

SOURCE = '''
"""ONNX Runtime, but for one thing each."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from runtimes.onnxruntime.cpu import OnnxRuntime
from toolkit.core.errors import SessionError
from toolkit.core.session import Runtime, Session


class Wrapped(Session):
    def __init__(self, inner):
        super().__init__(inner.signature)
        self._inner = inner

    def _prepare(self, dims):
        pass

    def _upload(self, feeds):
        self._inner.upload(feeds)

    def forward(self):
        self._inner.forward()

    def synchronize(self):
        self._inner.synchronize()

    def _download(self):
        return self._inner.download()

    def _provenance(self):
        return self._inner.provenance()

    def _close(self):
        self._inner.close()


class FarSession(Wrapped):
    def _provenance(self):
        return replace(self._inner.provenance(), device="gpu")


class Far(Runtime):
    """Says that it ran on a GPU."""

    name: ClassVar = "far"
    accepts: ClassVar = OnnxRuntime.accepts

    def probe(self):
        return OnnxRuntime().probe()

    def open(self, artifact, options):
        return FarSession(OnnxRuntime().open(artifact, options))


class CoarseSession(Wrapped):
    def _download(self):
        outputs = self._inner.download()
        return {name: array * np.float32(1.001) for name, array in outputs.items()}

    def _provenance(self):
        return replace(self._inner.provenance(), precision="bfloat16")


class Coarse(Runtime):
    """Computes in bfloat16, whatever is requested."""

    name: ClassVar = "coarse"
    accepts: ClassVar = OnnxRuntime.accepts

    def probe(self):
        return OnnxRuntime().probe()

    def open(self, artifact, options):
        return CoarseSession(OnnxRuntime().open(artifact, options))


class LeakingSession(Wrapped):
    LEAK = 1000  # bytes a pass

    def __init__(self, inner):
        super().__init__(inner)
        self._kept = []

    def forward(self):
        self._kept.append(bytes(self.LEAK))
        self._inner.forward()


class Leaking(Runtime):
    """Keeps a thousand bytes of every pass."""

    name: ClassVar = "leaking"
    accepts: ClassVar = OnnxRuntime.accepts

    def probe(self):
        return OnnxRuntime().probe()

    def open(self, artifact, options):
        return LeakingSession(OnnxRuntime().open(artifact, options))


class WrongSession(Wrapped):
    def _download(self):
        return {name: array + 1 for name, array in self._inner.download().items()}


class Moody(Runtime):
    """Works in its first process; in the second it is `wrong`, or it `refuses`.

    Options: `log`, a file that gets a byte for each process; `mood`, one of the two.
    """

    name: ClassVar = "moody"
    accepts: ClassVar = OnnxRuntime.accepts

    def probe(self):
        return OnnxRuntime().probe()

    def open(self, artifact, options):
        log = Path(options.tuning["log"])
        second = log.exists() and log.stat().st_size == 1
        with log.open("ab") as stream:
            stream.write(b".")
        if second and options.tuning["mood"] == "refuses":
            raise SessionError("Not again.", hint="Ask another day.")
        session = OnnxRuntime().open(artifact, replace(options, tuning={}))
        return WrongSession(session) if second else Wrapped(session)
'''
PASSES_SOURCE = '''
"""A pass that changes what a graph computes."""

import onnx_ir as ir


class Wrong(ir.passes.InPlacePass):
    def call(self, model):
        for node in model.graph:
            if node.op_type in ("Relu", "Sigmoid", "Tanh"):
                node.op_type = "Abs"
        return ir.passes.PassResult(model, modified=True)
'''
RUNTIMES = {"coarse": "Coarse", "far": "Far", "leaking": "Leaking", "moody": "Moody"}


def install(site: Path) -> dict[str, str]:
    """Install RUNTIMES and a pass in `site`; return the environment that finds them."""
    info = site / "third_party-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    points = [f"{name} = third_party:{attribute}" for name, attribute in RUNTIMES.items()]
    passes = ["[toolkit.passes]", "wrong = third_party_passes:Wrong"]
    lines = ["[toolkit.runtimes]", *points, *passes, ""]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (site / "third_party_passes.py").write_text(PASSES_SOURCE)
    (site / "third_party.py").write_text(SOURCE)
    places = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(places)}

"""ONNX Runtime on the CPU, with bound inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import numpy as np
import onnxruntime as ort

from runtimes.executed import device_of, precision_of
from runtimes.onnxruntime_session import (
    details_of,
    identical,
    recorded,
    settings_of,
    unreadable,
)
from toolkit.core.artifact import Artifact, Format
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

PROVIDER = "CPUExecutionProvider"
DEVICES = {PROVIDER: "cpu"}


@final
class OnnxRuntime(Runtime):
    name: ClassVar[str] = "onnxruntime"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.ONNX})

    def probe(self) -> Availability:
        return Availability(ok=True, version=ort.__version__)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        return OnnxRuntimeSession(artifact, options, _create(artifact, settings_of(options)))


def _create(artifact: Artifact, settings: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(artifact.path, settings, providers=[PROVIDER])
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        raise unreadable(artifact.path, error) from error


@final
class OnnxRuntimeSession(Session):
    """Inputs are read from the caller's memory; outputs are written to buffers made once."""

    def __init__(
        self, artifact: Artifact, options: SessionOptions, session: ort.InferenceSession
    ) -> None:
        super().__init__(artifact.signature)
        self._artifact = artifact
        self._options = options
        self._session: Any = session
        self._binding: Any = None
        self._run_bound: Callable[[Any], None] = lambda _: not_ready()

    def _prepare(self, dims: Mapping[str, int]) -> None:
        self._binding = binding = self._session.io_binding()
        for spec in self.signature.outputs:
            shape = spec.resolve(dims)
            # An extent known only after a pass, or a dtype that NumPy lacks: let it be allocated.
            if None in shape or spec.dtype not in np.sctypeDict:
                binding.bind_output(spec.name, "cpu")
            else:
                value = ort.OrtValue.ortvalue_from_shape_and_type(
                    list(shape), np.dtype(spec.dtype), "cpu"
                )
                binding.bind_ortvalue_output(spec.name, value)
        self._run_bound = self._session.run_with_iobinding

    def _upload(self, feeds: Feeds) -> None:
        self._feeds = {name: np.asarray(array, order="C") for name, array in feeds.items()}
        for name, array in self._feeds.items():
            self._binding.bind_cpu_input(name, array)

    def forward(self) -> None:
        self._run_bound(self._binding)

    def synchronize(self) -> None:
        pass  # on the CPU provider a pass is complete when the call returns

    def _download(self) -> Outputs:
        # OrtValue.numpy() is a view of the buffer that the next pass writes.
        values = self._binding.get_outputs()
        return {
            spec.name: host_copy(value.numpy())
            for spec, value in zip(self.signature.outputs, values, strict=True)
        }

    def _provenance(self) -> Provenance:
        nodes, outputs = recorded(settings_of(self._options), self._twin)
        self.forward()
        same = identical(self._download(), outputs)
        return Provenance(
            runtime="onnxruntime",
            version=ort.__version__,
            device=device_of(nodes, DEVICES),
            precision=precision_of(nodes),
            threads=self._session.get_session_options().intra_op_num_threads,
            details=details_of(self._session, nodes, same),
        )

    def _twin(self, settings: ort.SessionOptions) -> tuple[ort.InferenceSession, Outputs]:
        session = _create(self._artifact, settings)
        with OnnxRuntimeSession(self._artifact, self._options, session) as twin:
            return session, twin.run(self._feeds)

    def _close(self) -> None:
        self._run_bound = lambda _: not_ready()
        self._binding = self._session = None
        self._feeds = {}

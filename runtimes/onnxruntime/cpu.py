"""ONNX Runtime on the CPU, with inputs and outputs bound via IO binding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np
import onnxruntime as ort

from runtimes.onnxruntime.session import (
    array_of,
    details_of,
    identical,
    recorded,
    settings_of,
    unreadable,
    value_of,
)
from runtimes.operator_trace import device_of, precision_of
from toolkit.core.artifact import Artifact, Format
from toolkit.core.dtypes import STRINGS, dtype_of, is_foreign
from toolkit.core.session import (
    Availability,
    Provenance,
    Runtime,
    Session,
    SessionOptions,
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


def _differ(declared: Sequence[int | str | None], shape: Sequence[int | None]) -> bool:
    """Return whether an extent differs from the fixed extent that is declared for it."""
    return any(
        isinstance(dim, int) and dim != extent for dim, extent in zip(declared, shape, strict=False)
    )


@final
class OnnxRuntimeSession(Session):
    """Session that reads inputs from the caller's memory and writes outputs to reused buffers."""

    def __init__(
        self, artifact: Artifact, options: SessionOptions, session: ort.InferenceSession
    ) -> None:
        super().__init__(artifact.signature)
        self._artifact = artifact
        self._options = options
        self._session: Any = session
        self._given: list[Any] = []
        self._binding: Any = None
        self._run_bound: Callable[[Any], None] = lambda _: not_ready()

    def _prepare(self, dims: Mapping[str, int]) -> None:
        specs, own = self.signature.outputs, self._session.get_outputs()
        shapes = [spec.resolve(dims) for spec in specs]
        # Strings, and outputs whose extents differ from those that the file declares, cannot be
        # bound: each pass takes its inputs as arguments and returns its outputs.
        if any(spec.dtype == STRINGS for spec in (*self.signature.inputs, *specs)) or any(
            _differ(declared.shape, shape) for declared, shape in zip(own, shapes, strict=True)
        ):
            self._binding = None
            self._run_bound = self._run_given
            return
        self._binding = binding = self._session.io_binding()
        for spec, shape in zip(specs, shapes, strict=True):
            # ONNX Runtime allocates outputs of unknown extents, or of a dtype that NumPy lacks.
            if None in shape or is_foreign(dtype_of(spec.dtype)):
                binding.bind_output(spec.name, "cpu")
            else:
                value = ort.OrtValue.ortvalue_from_shape_and_type(
                    list(shape), np.dtype(spec.dtype), "cpu"
                )
                binding.bind_ortvalue_output(spec.name, value)
        unknown = any(None in shape for shape in shapes)
        self._run_bound = self._run_first if unknown else self._session.run_with_iobinding

    def _upload(self, feeds: Feeds) -> None:
        self._feeds = {name: np.asarray(array, order="C") for name, array in feeds.items()}
        if self._binding is None:
            return
        for name, array in self._feeds.items():
            if is_foreign(array.dtype):
                self._binding.bind_ortvalue_input(name, value_of(array))
            else:
                self._binding.bind_cpu_input(name, array)

    def _run_first(self, binding: Any) -> None:
        """Run the first pass with outputs of unknown extents.

        A binding refuses a second pass if an output has another rank than the file declares.
        """
        self._session.run_with_iobinding(binding)
        ranks = [len(value.shape()) for value in binding.get_outputs()]
        if ranks == [len(spec.shape) for spec in self.signature.outputs]:
            self._run_bound = self._session.run_with_iobinding
        else:
            self._binding = None
            self._run_bound = self._run_given
            self._run_given(None)

    def _run_given(self, _: Any) -> None:
        values = {
            name: value_of(array) if is_foreign(array.dtype) else array
            for name, array in self._feeds.items()
        }
        self._given = self._session.run(None, values)

    def forward(self) -> None:
        self._run_bound(self._binding)

    def synchronize(self) -> None:
        pass  # on the CPU provider a pass is complete when the call returns

    def _download(self) -> Outputs:
        if self._binding is None:
            return {
                spec.name: np.array(array)
                for spec, array in zip(self.signature.outputs, self._given, strict=True)
            }
        return {
            spec.name: array_of(value, spec)
            for spec, value in zip(self.signature.outputs, self._binding.get_outputs(), strict=True)
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
        self._given = []
        self._feeds = {}
